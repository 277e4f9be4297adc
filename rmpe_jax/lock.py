"""Locks of folders: one process at a time writes to a folder, on one machine or on several.

A lock is a file that names the process that holds it. A process that ended without releasing its
lock is recognized:

* On the same machine at once: its id belongs to no process, or to one that started later.
* Elsewhere by silence: a holder touches its lock every 30 seconds. A lock that is not touched for 5
  minutes is taken over. Both times are those of the file system, so the machines' clocks may
  differ. Elsewhere is another machine that shares the file system, another container, or this
  machine before it was started anew; and on Windows every process.

A process that finds such a lock waits until it is touched or its time is over. So a command that is
started again at once after a kill goes on by itself, and a second one is refused.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import shlex
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from typing import IO

from rmpe_jax.errors import UserError
from rmpe_jax.files import not_writable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_TOUCH_EVERY = 30.0  # seconds
_DEAD_AFTER = 300.0  # seconds without a touch
_LOOK_EVERY = 1.0  # seconds


class FolderLock:
    """The only right to write to a folder; a context manager, which makes the folder if needed.

    A folder that it made is removed again if nothing was written to it.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        path: str | os.PathLike | None = None,
        *,
        wait: bool = False,
    ) -> None:
        """Nothing is locked before the `with` block.

        Args:
          folder: to write to.
          path: of the lock file; None: `.lock` in the folder.
          wait: wait for a living holder, however long, instead of an error.
        """
        self._folder = pathlib.Path(folder)
        self._path = (self._folder / ".lock" if path is None else pathlib.Path(path)).absolute()
        self._wait = wait
        self._owner = _Owner.this_process()
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._touch_until_released, daemon=True)

    def __enter__(self) -> "FolderLock":
        """Lock the folder.

        Raises:
          UserError: a living process holds the lock, or the folder cannot be written to.
        """
        above = (self._path.parent, *self._path.parent.parents)
        self._made = [folder for folder in above if not folder.exists()]
        try:
            _acquire(self._folder, self._path, self._owner, self._wait)
        except OSError as error:
            self._remove_made()
            raise not_writable(self._folder, error) from None
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() != self._owner.pid:
            return  # a fork of the holder
        self._released.set()
        self._thread.join()
        # A lock that cannot be removed is that of a dead process when this one has ended.
        with contextlib.suppress(OSError):
            if fcntl is None:  # Windows does not remove open files
                self._remove_mine()
            else:
                with _opened_alone(self._path):
                    self._remove_mine()
        self._remove_made()

    def require_held(self) -> None:
        """Check that the lock is still held; to be called before something is written.

        Raises:
          UserError: it was removed, or another machine took it over, because this process was
            stopped for minutes.
        """
        if not self._is_held():
            raise UserError(
                f"{self._folder} belongs to another process now: its lock {self._path} was removed "
                "or taken over; this process stops and writes nothing more to it"
            )

    def _is_held(self) -> bool:
        try:
            return self._path.read_text(encoding="utf-8") == self._owner.to_json()
        except FileNotFoundError:
            return False
        except OSError:
            return True  # trouble of a network

    def _touch_until_released(self) -> None:
        while not self._released.wait(_TOUCH_EVERY):
            if not self._is_held():
                return
            with contextlib.suppress(OSError):
                os.utime(self._path)

    def _remove_mine(self) -> None:
        if self._path.read_text(encoding="utf-8") == self._owner.to_json():
            self._path.unlink()

    def _remove_made(self) -> None:
        with contextlib.suppress(OSError):
            for folder in self._made:
                folder.rmdir()


@dataclasses.dataclass(frozen=True)
class _Owner:
    """The process that holds a lock, as stored in its file."""

    host: str
    machine: str  # the host's name and what tells machines of the same name apart
    pid: int
    start: str  # when the process started, see `_start_of`
    since: str
    command: str
    token: str  # another one for each lock

    @classmethod
    def this_process(cls) -> "_Owner":
        program, *arguments = sys.argv or [""]
        command = f"{os.path.basename(program)} {shlex.join(arguments)}"
        command = " ".join(command.split())  # one line
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            pid=os.getpid(),
            start=_start_of(os.getpid()) or "",
            since=time.strftime("%Y-%m-%d %H:%M"),
            command=command if len(command) <= 200 else command[:200] + " ...",
            token=uuid.uuid4().hex,
        )

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self)) + "\n"

    def __str__(self) -> str:
        return f"process {self.pid} on host {self.host} since {self.since} ({self.command})"


def _acquire(folder: pathlib.Path, path: pathlib.Path, owner: _Owner, wait: bool) -> None:
    """Makes `owner` the only holder of the lock at `path`, or raises a UserError."""
    for _ in range(100):
        with contextlib.suppress(FileExistsError):
            path.parent.mkdir(parents=True)
        with contextlib.suppress(FileExistsError):
            _create(path, owner)
            return
        # FileNotFoundError: the lock or the folder was removed in between.
        with contextlib.suppress(FileNotFoundError):
            _wait_for_end(folder, path, wait)
            if _take_over(folder, path, owner):
                return
    raise FileNotFoundError(2, "its lock appears and disappears", os.fspath(path))


def _wait_for_end(folder: pathlib.Path, path: pathlib.Path, wait: bool) -> None:
    """Returns when the holder of a lock is dead.

    Raises:
      FileNotFoundError: the lock was released.
      UserError: the holder is alive, unless `wait`.
    """
    first = None
    while True:
        with open(path, encoding="utf-8") as file:
            holder, touched = _holder_of(file), os.fstat(file.fileno()).st_mtime
            try:
                alive = _is_alive(holder, file)
            except PermissionError:  # a folder of somebody else: the error names the holder
                alive, wait = True, False
        if alive is False:
            return
        changed = first is not None and first != (holder, touched)
        if not wait and (alive or changed):
            raise UserError(
                f"{folder} is in use by {holder or 'another process'}: "
                "wait for it, stop it, or choose another folder"
            )
        if first is None:
            line = "%s is in use by %s: waiting for its end"
            if not alive:
                line += f"; it counts as dead after {_DEAD_AFTER / 60:.0f} minutes of silence"
            logging.getLogger(__name__).warning(line, folder, holder or "another process")
            first = holder, touched
        time.sleep(_LOOK_EVERY)


def _take_over(folder: pathlib.Path, path: pathlib.Path, owner: _Owner) -> bool:
    """Whether `owner` is the one of several who have seen a dead holder that got its lock."""
    try:
        with _opened_alone(path) as file:
            holder = _holder_of(file)
            if _is_alive(holder, file) is not False:
                return False
            _overwrite(file, owner)
    except PermissionError as error:
        raise UserError(
            f"{folder} has the lock {path} of a dead process, which cannot be written "
            f"({error.strerror}): remove it"
        ) from None
    logging.getLogger(__name__).warning(
        "%s: taken over from %s, which is dead", folder, holder or "another process"
    )
    return True


def _create(path: pathlib.Path, owner: _Owner) -> None:
    with open(path, "x", encoding="utf-8") as file:
        try:
            file.write(owner.to_json())
            file.flush()
        except OSError:
            path.unlink()
            raise


def _overwrite(file: IO[str], owner: _Owner) -> None:
    # Cut off only afterwards: writing in place needs no room on a full disk.
    file.seek(0)
    file.write(owner.to_json())
    file.truncate()
    file.flush()


@contextlib.contextmanager
def _opened_alone(path: pathlib.Path) -> Iterator[IO[str]]:
    """The file, opened by one process at a time.

    Raises:
      FileNotFoundError: it was removed, also while this process waited for it.
    """
    with open(path, "r+", encoding="utf-8") as file:
        if fcntl is not None:
            with contextlib.suppress(OSError):  # file systems without such locks
                fcntl.flock(file, fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
            raise FileNotFoundError
        yield file


def _holder_of(file: IO[str]) -> _Owner | None:
    """The process that a lock file names; None if it is not written yet, or damaged."""
    try:
        return _Owner(**json.loads(file.read()))
    except (TypeError, ValueError):
        return None


def _is_alive(holder: _Owner | None, file: IO[str]) -> bool | None:
    """Whether the holder of an open lock file is alive; None if only time can tell."""
    if holder and holder.machine == _machine():
        start = _start_of(holder.pid)
        if start is None:
            return False
        if start and holder.start:
            return start == holder.start
    return False if _silence(file) > _DEAD_AFTER else None


def _silence(file: IO[str]) -> float:
    """Seconds since the file was touched, by the clock of its file system."""
    with tempfile.TemporaryFile(dir=os.path.dirname(file.name)) as new:
        return os.fstat(new.fileno()).st_mtime - os.fstat(file.fileno()).st_mtime


def _machine() -> str:
    """The host's name, the start of its system, and the processes that are seen from here.

    Two machines may have the same name, and two containers on one of them the same process ids.
    """
    parts = [socket.gethostname()]
    with contextlib.suppress(OSError):  # only Linux has these
        parts.append(pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(parts)


def _start_of(pid: int) -> str | None:
    """When a process of this machine started, in clock ticks; None if there is no such process.

    It is "" where the system does not tell.
    """
    if fcntl is None:
        return ""  # Windows, where os.kill ends the process
    try:
        os.kill(pid, 0)  # sends no signal
    except ProcessLookupError:
        return None
    except PermissionError:
        pass  # a process of somebody else
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    state, *fields = status.rpartition(")")[2].split()
    return None if state in "ZX" else fields[18]  # ended, but still listed
