"""The small files of a run: config, metrics, TensorBoard's and the profiler's.

They are written to a folder. If the workdir is an address in an object store, whose files cannot be
appended to, that is a temporary folder, and the files are copied from there after each checkpoint,
so that a store that does not take them costs no checkpoint.
"""

import contextlib
import pathlib
import tempfile
from collections.abc import Iterator

from etils import epath

from rmpe_jax.errors import UserError
from rmpe_jax.object_store import is_address, one_line
from rmpe_jax.processes import is_first_process
from rmpe_jax.training.metrics import METRICS


class RunFiles:
    """The small files of a run.

    Attributes:
      folder: where they are written.
    """

    def __init__(self, folder: pathlib.Path, store: epath.Path | None = None) -> None:
        """With `store`, they are copied there by `publish`."""
        self.folder = folder
        self._store = store
        self._published: dict[pathlib.Path, tuple[int, int]] = {}

    def publish(self) -> None:
        """Copies the files that have changed since the last time; only process 0 does.

        Raises:
          UserError: the store does not take them.
        """
        if self._store is None or not is_first_process():
            return
        for file in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            status = file.stat()
            version = status.st_mtime_ns, status.st_size
            if self._published.get(file) == version:
                continue
            target = self._store / file.relative_to(self.folder).as_posix()
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(file.read_bytes())
            except Exception as error:  # stores have errors of their own
                line = f"{target}: cannot be written ({one_line(error)})"
                raise UserError(f"{line}; run the same command again") from error
            self._published[file] = version


@contextlib.contextmanager
def open_run_files(workdir: epath.Path) -> Iterator[RunFiles]:
    """The files of the run in `workdir`, with the metrics that an address has."""
    if not is_address(workdir):
        yield RunFiles(pathlib.Path(workdir))
        return
    with tempfile.TemporaryDirectory(prefix="rmpe_jax_run_") as name:
        folder = pathlib.Path(name)
        if is_first_process():
            _fetch(workdir / METRICS, folder / METRICS)
        yield RunFiles(folder, workdir)


def _fetch(source: epath.Path, target: pathlib.Path) -> None:
    try:
        if source.exists():
            target.write_bytes(source.read_bytes())
    except Exception as error:  # stores have errors of their own
        line = f"{source}: cannot be read ({one_line(error)})"
        raise UserError(f"{line}; run the same command again") from error
