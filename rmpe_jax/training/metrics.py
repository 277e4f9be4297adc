"""Metrics of a run: `metrics.jsonl` always, TensorBoard if `tensorboardX` is installed."""

import contextlib
import importlib
import json
import math
import pathlib
import time
from typing import Any

from rmpe_jax.errors import UserError

METRICS = "metrics.jsonl"  # the name of the file


class MetricWriter:
    """Appends flat JSON lines `{"step": …, name: value, …}`; only the first process has a writer.

    On resuming, lines after the checkpoint's step are removed, so that each step occurs once.
    """

    def __init__(self, folder: pathlib.Path, start_step: int):
        """Raises a UserError if the folder cannot be written to."""
        self._path = folder / METRICS
        with self._clear_errors():
            _cut_after(self._path, start_step)
            self._file = self._path.open("a", buffering=1)
            self._board = _tensorboard(folder / "tensorboard", start_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Writes values; not finite ones as null. Raises a UserError on a full disk."""
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        with self._clear_errors():
            self._file.write(json.dumps({"step": step, **finite}) + "\n")
            if self._board:
                self._board.write(step, values)

    def close(self) -> None:
        # All lines have been flushed; a full disk fails here again.
        with contextlib.suppress(OSError):
            self._file.close()
        with contextlib.suppress(OSError):
            if self._board:
                self._board.close()

    @contextlib.contextmanager
    def _clear_errors(self):
        try:
            yield
        except OSError as error:
            raise UserError(
                f"{self._path.parent}: metrics cannot be written ({error.strerror}); "
                "make room and run the same command again"
            ) from error


def _cut_after(path: pathlib.Path, step: int) -> None:
    """Keeps the complete lines up to `step`."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text().splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line + "\n")
        except (json.JSONDecodeError, KeyError, TypeError):
            continue  # the last line of a run that was killed while writing it
    partial = path.with_suffix(".partial")
    partial.write_text("".join(kept))
    partial.replace(path)


class _TensorBoard:
    """An event file, written in the caller's thread.

    tensorboardX's own writer uses a thread; a full disk ends it, and closing then waits forever.
    """

    def __init__(self, folder: pathlib.Path, start_step: int):
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(exist_ok=True)
        self._events = importlib.import_module("tensorboardX.proto.event_pb2")
        self._file = EventsWriter(str(folder / "events"))
        # TensorBoard then drops later steps of an earlier run.
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        self._add(start_step + 1, session_log=start)

    def write(self, step: int, values: dict[str, float]) -> None:
        scalars = [{"tag": name, "simple_value": value} for name, value in values.items()]
        self._add(step, summary={"value": scalars})

    def _add(self, step: int, **content: Any) -> None:
        event = self._events.Event(wall_time=time.time(), step=step, **content)
        self._file.write_event(event)
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _tensorboard(folder: pathlib.Path, start_step: int) -> _TensorBoard | None:
    try:
        return _TensorBoard(folder, start_step)
    except ImportError:
        return None
