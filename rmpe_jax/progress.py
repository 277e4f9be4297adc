"""A progress line with rate and time left, for a terminal or a log."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T],
    total: int | None,
    what: str,
    file: TextIO | None = None,
    every: float | None = None,
) -> Iterator[T]:
    """Yield `items`, and say how far it is.

    Args:
      items: to pass through.
      total: how many there are; None if nobody knows.
      what: their name in the plural.
      file: where to write, stderr by default. On a terminal one line is rewritten.
      every: seconds between lines; by default 0.2 on a terminal and 10 elsewhere.
    """
    file = file or sys.stderr
    terminal = file.isatty()
    every = (0.2 if terminal else 10.0) if every is None else every
    start = said = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - said >= every or done == total:
            said = now
            line = progress_line(done, total, what, now - start)
            print(f"\r{line:<79}" if terminal else line, end="", file=file)
            print("" if terminal and done != total else "\n", end="", file=file, flush=True)
    if terminal and total is None:
        print(file=file)


def progress_line(done: int, total: int | None, what: str, seconds: float) -> str:
    """Such as `1,200/5,000 pictures, 431/s, 0:08 left`."""
    rate = done / max(seconds, 1e-9)
    said = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
    if total is None:
        return f"{done:,} {what}, {said}"
    left = round(max(total - done, 0) / rate)  # videos can be longer than they announce
    return f"{done:,}/{total:,} {what}, {said}, {duration(left)} left"


def duration(seconds: int) -> str:
    """Such as `0:08` or `1:02:03`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
