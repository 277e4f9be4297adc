"""JSON lines of measurements, each written as soon as it is known, within a budget of time."""

import gc
import json
import pathlib
import time
import traceback
from collections.abc import Callable
from typing import Any


class Report:
    """Appends one JSON line per measurement to a file, and prints it.

    Attributes:
      path: of the file.
      deadline: when the budget ends, as `time.time()`.
    """

    def __init__(self, path: pathlib.Path, deadline: float) -> None:
        self.path, self.deadline = path, deadline

    def left(self) -> float:
        """Seconds left of the budget."""
        return self.deadline - time.time()

    def add(self, section: str, name: str, **values: Any) -> None:
        """Writes a line."""
        line = json.dumps({"section": section, "name": name, **values}, default=str)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        print(line, flush=True)

    def has(self, seconds: float, section: str, name: str) -> bool:
        """Whether this much time is left; writes a line if it is not."""
        enough = self.left() >= seconds
        if not enough:
            why = f"takes about {seconds:.0f} s, {max(self.left(), 0):.0f} s are left"
            self.add(section, name, left_out=why)
        return enough

    def measure(
        self, section: str, name: str, function: Callable[[], dict], *, seconds: float
    ) -> None:
        """Writes what a function returns, or its error, or that there is no time for it.

        Args:
          section: of the line.
          name: of the line.
          function: measures; gives the values of the line.
          seconds: that it takes, roughly.
        """
        if not self.has(seconds, section, name):
            return
        begin = time.time()
        try:
            values = function()
        except Exception as error:
            traceback.print_exc()
            values = {"error": brief(error)}
        self.add(section, name, **values, took_s=round(time.time() - begin, 1))
        gc.collect()  # arrays that a failed measurement holds


def brief(error: BaseException) -> str:
    """Type and first words of an error."""
    return f"{type(error).__name__}: {str(error).strip()[:300]}"


def attempt(function: Callable[[], Any]) -> Any:
    """What a function returns; None, and its error on stderr, if it fails."""
    try:
        return function()
    except Exception:
        traceback.print_exc()
        return None


def read_lines(path: pathlib.Path) -> list[dict]:
    """The lines of a file; one that was cut off while it was written is left out."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows
