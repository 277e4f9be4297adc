"""A folder has one owner: who is refused, whose lock is that of a dead process, who wins a race."""

import contextlib
import importlib.util
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

import pytest

from rmpe_jax import lock as lock_module
from rmpe_jax.errors import UserError
from rmpe_jax.lock import FolderLock

HOLD = """
import sys, time
from rmpe_jax.errors import UserError
from rmpe_jax.lock import FolderLock
try:
    with FolderLock(sys.argv[1]):
        print("locked", flush=True)
        sys.stdin.readline()
except UserError as error:
    print(error, flush=True)
"""


@pytest.fixture
def hold():
    """Starts a process that locks a folder until it gets a line."""
    started = []

    def start(folder: pathlib.Path) -> subprocess.Popen:
        command = [sys.executable, "-c", HOLD, str(folder)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen(command, **pipes))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def other_machine(monkeypatch):
    """A context in which this process is on another machine."""

    @contextlib.contextmanager
    def context():
        with monkeypatch.context() as patch:
            patch.setattr(lock_module.socket, "gethostname", lambda: "elsewhere")
            yield

    return context


@pytest.fixture
def meanwhile(monkeypatch):
    """A function: what is done whenever a process waits, instead of waiting."""
    return lambda act: monkeypatch.setattr(lock_module.time, "sleep", lambda _: act())


def left_by(folder: pathlib.Path, **changes) -> pathlib.Path:
    """A lock as a process leaves it that did not release it."""
    with FolderLock(folder):
        content = json.loads((folder / ".lock").read_text())
    folder.mkdir(exist_ok=True)
    (folder / ".lock").write_text(json.dumps(content | changes) + "\n")
    return folder / ".lock"


def silent_for(path: pathlib.Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def refusal(folder: pathlib.Path) -> str:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError) as error, FolderLock(folder):
        pass
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert "\n" not in str(error.value)
    return str(error.value)


def taken(folder: pathlib.Path) -> None:
    with FolderLock(folder) as lock:
        lock.require_held()
        assert json.loads((folder / ".lock").read_text())["pid"] == os.getpid()
    assert not (folder / ".lock").exists()


def test_a_second_process_is_told_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bin/rmpe train", "--workdir=my run\n"])
    with FolderLock(tmp_path):
        line = refusal(tmp_path)
    host = re.escape(lock_module.socket.gethostname())
    assert re.fullmatch(
        rf"{tmp_path} is in use by process {os.getpid()} on host {host} since "
        r"\d{4}-\d\d-\d\d \d\d:\d\d \(rmpe train '--workdir=my run '\): "
        "wait for it, stop it, or choose another folder",
        line,
    )
    taken(tmp_path)


def test_an_error_releases_the_folder(tmp_path):
    (tmp_path / "mine").write_text("")
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error), FolderLock(tmp_path):
            raise error
    assert os.listdir(tmp_path) == ["mine"]


def test_folders_made_for_nothing_are_removed(tmp_path):
    with FolderLock(tmp_path / "a" / "b"):
        pass
    assert os.listdir(tmp_path) == []
    with FolderLock(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "result").write_text("")
    assert os.listdir(tmp_path / "a" / "b") == ["result"]


def test_a_lock_beside_the_folder(tmp_path):
    with FolderLock(tmp_path / "new", tmp_path / "new.lock"):
        assert os.listdir(tmp_path) == ["new.lock"]
        with (
            pytest.raises(UserError, match="new is in use by"),
            FolderLock(tmp_path / "new", tmp_path / "new.lock"),
        ):
            pass
    assert os.listdir(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"file/run cannot be written \(Not a directory\)"),
        FolderLock(tmp_path / "file" / "run"),
    ):
        pass


def test_a_full_disk_leaves_no_lock(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lock_module._Owner, "to_json", full)
    with (
        pytest.raises(UserError, match=r"cannot be written \(No space left"),
        FolderLock(tmp_path / "new"),
    ):
        pass
    assert os.listdir(tmp_path) == []


# ---- dead processes ------------------------------------------------------------------------------


def test_a_killed_process_is_dead_at_once(tmp_path, hold, caplog):
    process = hold(tmp_path)
    assert process.stdout.readline() == "locked\n"
    assert f"in use by process {process.pid} on host" in refusal(tmp_path)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    taken(tmp_path)  # nobody has asked for its exit status yet
    process.wait()
    assert re.search(rf"taken over from process {process.pid} on .*, which is dead", caplog.text)


def test_a_process_that_is_gone(tmp_path, caplog):
    process = subprocess.Popen(["true"])
    process.wait()
    left_by(tmp_path, pid=process.pid)
    taken(tmp_path)
    assert len(caplog.messages) == 1


def test_its_id_belongs_to_another_process_now(tmp_path):
    path = left_by(tmp_path)
    assert "in use" in refusal(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"start": "1"}))
    taken(tmp_path)


def test_a_process_of_somebody_else_is_alive(tmp_path, monkeypatch):
    path = left_by(tmp_path)
    silent_for(path, 1e6)

    def not_allowed(*_):
        raise PermissionError

    monkeypatch.setattr(os, "kill", not_allowed)
    assert "in use" in refusal(tmp_path)


def test_silence_decides_where_start_times_are_unknown(tmp_path, monkeypatch, meanwhile):
    monkeypatch.setattr(lock_module, "_start_of", lambda pid: "")
    path = left_by(tmp_path)
    silent_for(path, 290)
    meanwhile(path.touch)
    assert "in use" in refusal(tmp_path)
    silent_for(path, 310)
    taken(tmp_path)


@pytest.mark.parametrize("what", ["host", "system"])
def test_a_lock_of_another_machine_lives_as_long_as_it_is_touched(
    tmp_path, other_machine, what, meanwhile
):
    """The process of the same id here, alive or dead, has nothing to do with it."""
    if what == "host":
        with other_machine():
            path = left_by(tmp_path)
    else:  # of the same name
        path = left_by(tmp_path, machine=f"{lock_module.socket.gethostname()} another-boot")
    for pid in (os.getpid(), 2**22 + 1):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": pid}))
        silent_for(path, 290)
        meanwhile(path.touch)
        assert refusal(tmp_path).endswith("wait for it, stop it, or choose another folder")
    silent_for(path, 310)
    taken(tmp_path)


def test_a_killed_command_that_is_started_again_elsewhere_goes_on(
    tmp_path, other_machine, meanwhile, monkeypatch, caplog
):
    """As in a new container, or after the machine was started anew."""
    with other_machine():
        left_by(tmp_path)
    silence, looks = iter((10, 100, 299, 301, 301)), []
    monkeypatch.setattr(lock_module, "_silence", lambda _: next(silence))
    meanwhile(lambda: looks.append(None))
    taken(tmp_path)
    assert len(looks) == 3
    waiting, taken_over = caplog.messages
    assert waiting.endswith(": waiting for its end; it counts as dead after 5 minutes of silence")
    assert "taken over from process" in taken_over


def test_another_process_was_faster(tmp_path, other_machine, meanwhile):
    with other_machine():
        path = left_by(tmp_path)
    time_of_touch = path.stat().st_mtime
    new = json.dumps(json.loads(path.read_text()) | {"pid": 7, "token": "new"})

    def take_over():
        path.write_text(new)
        os.utime(path, (time_of_touch, time_of_touch))

    meanwhile(take_over)
    with pytest.raises(UserError, match="in use by process 7 on"), FolderLock(tmp_path):
        pass


def test_a_lock_in_a_folder_of_somebody_else(tmp_path, other_machine, monkeypatch):
    """Its holder is named, though nothing can be written to tell the time."""
    with other_machine():
        left_by(tmp_path)

    def not_allowed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock_module.tempfile, "TemporaryFile", not_allowed)
    assert f"in use by process {os.getpid()} on host elsewhere" in refusal(tmp_path)


def test_a_dead_lock_of_somebody_else(tmp_path, monkeypatch):
    path = left_by(tmp_path, start="1")

    def not_allowed(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(lock_module, "_opened_alone", not_allowed)
    assert refusal(tmp_path) == (
        f"{tmp_path} has the lock {path} of a dead process, which cannot be written "
        "(Permission denied): remove it"
    )


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"pid": 1}'])
def test_a_lock_that_names_nobody(tmp_path, content, meanwhile):
    """Such as one whose process is about to write its name."""
    (tmp_path / ".lock").write_text(content)
    silent_for(tmp_path / ".lock", 100)
    meanwhile((tmp_path / ".lock").touch)
    assert f"{tmp_path} is in use by another process: wait for it" in refusal(tmp_path)
    silent_for(tmp_path / ".lock", 310)
    taken(tmp_path)


def test_the_clock_of_the_file_system_counts(tmp_path, other_machine, monkeypatch, meanwhile):
    with other_machine():
        silent_for(left_by(tmp_path), 100)
    meanwhile((tmp_path / ".lock").touch)
    monkeypatch.setattr(time, "time", lambda: 1e10)
    assert "in use" in refusal(tmp_path)


def test_a_process_that_waits_for_a_living_holder(tmp_path, meanwhile, caplog):
    first = FolderLock(tmp_path).__enter__()
    waits = []

    def release_at_the_third():
        waits.append(None)
        if len(waits) == 3:
            first.__exit__()

    meanwhile(release_at_the_third)
    with FolderLock(tmp_path, wait=True) as lock:
        lock.require_held()
    assert len(waits) == 3
    (line,) = caplog.messages
    assert line.endswith(": waiting for its end")


def test_windows(tmp_path, monkeypatch):
    """There is no fcntl, and os.kill would end the process that it asks for."""
    path = left_by(tmp_path)
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(os, "kill")
    spec = importlib.util.spec_from_file_location("lock_on_windows", lock_module.__file__)
    windows = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "lock_on_windows", windows)
    spec.loader.exec_module(windows)
    monkeypatch.setattr(windows.time, "sleep", lambda _: path.touch())
    silent_for(path, 100)
    with pytest.raises(UserError, match="in use by"), windows.FolderLock(tmp_path):
        pass
    silent_for(path, 310)
    with windows.FolderLock(tmp_path) as lock:
        lock.require_held()
    assert not path.exists()


# ---- the holder ----------------------------------------------------------------------------------


def wait_until(condition) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_holder_touches_its_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(lock_module, "_TOUCH_EVERY", 0.01)
    threads = threading.active_count()
    with FolderLock(tmp_path) as lock:
        silent_for(tmp_path / ".lock", 1000)
        wait_until(lambda: time.time() - (tmp_path / ".lock").stat().st_mtime < 100)
        lock.require_held()
    assert threading.active_count() == threads


def test_a_holder_that_was_taken_for_dead(tmp_path, monkeypatch, other_machine):
    """As after minutes of a suspended machine; the new holder is left alone."""
    monkeypatch.setattr(lock_module, "_TOUCH_EVERY", 0.01)
    with FolderLock(tmp_path) as lock:
        silent_for(tmp_path / ".lock", 1000)
        with other_machine():
            monkeypatch.setattr(lock_module, "_DEAD_AFTER", -1e6)
            with FolderLock(tmp_path) as new:
                content = (tmp_path / ".lock").read_text()
                with pytest.raises(UserError, match="belongs to another process now"):
                    lock.require_held()
                wait_until(lambda: not lock._thread.is_alive())
                lock.__exit__()
                assert (tmp_path / ".lock").read_text() == content
                new.require_held()


def test_a_lock_that_was_removed(tmp_path):
    with FolderLock(tmp_path) as lock:
        (tmp_path / ".lock").unlink()
        with pytest.raises(UserError, match=r"its lock .*/\.lock was removed"):
            lock.require_held()


def test_a_fork_of_the_holder_does_not_release_it(tmp_path, monkeypatch):
    with FolderLock(tmp_path) as lock:
        with monkeypatch.context() as patch:
            patch.setattr(os, "getpid", lambda: 1)
            lock.__exit__()
        lock.require_held()
    assert os.listdir(tmp_path) == []


# ---- races ---------------------------------------------------------------------------------------


def race(folder: pathlib.Path, runners: int) -> list[str]:
    """What threads get that lock the folder at once: "locked", or the line of the refusal."""
    results, start, done = [], threading.Barrier(runners), threading.Barrier(runners)

    def run():
        with contextlib.ExitStack() as stack:
            lock = FolderLock(folder)
            start.wait()
            try:
                stack.enter_context(lock)
                results.append("locked")
            except UserError as error:
                results.append(str(error))
            done.wait()

    threads = [threading.Thread(target=run) for _ in range(runners)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results)


@pytest.mark.parametrize("dead", [False, True])
def test_one_of_many_gets_the_folder(tmp_path, dead):
    for number in range(20):
        folder = tmp_path / str(number)
        if dead:
            left_by(folder, start="1")
        *refused, locked = race(folder, 8)
        assert locked == "locked"
        assert all(line.startswith(f"{folder} is in use by ") for line in refused)


def test_one_of_two_that_have_both_seen_a_dead_process(tmp_path, monkeypatch):
    left_by(tmp_path, start="1")
    both, opened_alone = threading.Barrier(2), lock_module._opened_alone
    waiting = threading.local()

    def wait_for_the_other(path):
        if not hasattr(waiting, "done"):
            waiting.done = True
            both.wait()
        return opened_alone(path)

    monkeypatch.setattr(lock_module, "_opened_alone", wait_for_the_other)
    refused, locked = race(tmp_path, 2)
    assert locked == "locked"
    assert refused.startswith(f"{tmp_path} is in use by process {os.getpid()} ")


def test_a_lock_that_is_released_while_another_waits_for_it(tmp_path, monkeypatch):
    """The one who waits must not end up with the removed file."""
    left_by(tmp_path, start="1")
    flock = lock_module.fcntl.flock

    def release_first(file, operation):
        (tmp_path / ".lock").unlink(missing_ok=True)
        monkeypatch.setattr(lock_module.fcntl, "flock", flock)
        flock(file, operation)

    monkeypatch.setattr(lock_module.fcntl, "flock", release_first)
    taken(tmp_path)


def test_processes_race(tmp_path, hold):
    left_by(tmp_path, start="1")
    processes = [hold(tmp_path) for _ in range(3)]
    lines = [process.stdout.readline() for process in processes]
    assert sorted("is in use by process" in line for line in lines) == [False, True, True]
    winner = processes[lines.index("locked\n")]
    assert all(f"process {winner.pid} " in line for line in lines if line != "locked\n")
    winner.communicate("\n")
    assert os.listdir(tmp_path) == []
