"""Where numbers of a run go: `metrics.jsonl` always, TensorBoard where `tensorboardX` is there."""

import json
import math
import pathlib
from typing import Any


class MetricWriter:
    """Appends flat JSON lines, `{"step": …, name: value, …}`; only the first process has one.

    After a resume, lines of steps after the checkpoint are cut: each step stands there once.
    """

    def __init__(self, folder: pathlib.Path, start_step: int):
        self._path = folder / "metrics.jsonl"
        _cut_after(self._path, start_step)
        self._file = self._path.open("a", buffering=1)
        self._board = _tensorboard(folder, start_step)

    def write(self, step: int, values: dict[str, float]) -> None:
        """Values that are not finite are written as null."""
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        for name, value in values.items():
            if self._board:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        self._file.close()
        if self._board:
            self._board.close()


def _cut_after(path: pathlib.Path, step: int) -> None:
    """Keeps the whole lines up to `step`."""
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


def _tensorboard(folder: pathlib.Path, start_step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
