"""A progress line with rate and remaining time, for a terminal or a log."""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from typing import TextIO, TypeVar

T = TypeVar("T")


def progress(
    items: Iterable[T],
    total: int | None,
    noun: str,
    file: TextIO | io.TextIOBase | None = None,
    interval: float | None = None,
) -> Iterator[T]:
    """Yield `items` and print the progress.

    Args:
      items: passed through.
      total: the number of items; None if it is not known.
      noun: what the items are, in the plural.
      file: where to print, stderr by default. On a terminal a single line is overwritten.
      interval: seconds between lines; by default 0.2 on a terminal and 10 elsewhere.
    """
    out = file or sys.stderr
    terminal = out.isatty()
    interval = (0.2 if terminal else 10.0) if interval is None else interval
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        now = time.monotonic()
        if now - last >= interval or done == total:
            last = now
            line = progress_line(done, total, noun, now - start)
            print(f"\r{line:<79}" if terminal else line, end="", file=out)
            print("" if terminal and done != total else "\n", end="", file=out, flush=True)
    if terminal and total is None:
        print(file=out)


def progress_line(done: int, total: int | None, noun: str, seconds: float) -> str:
    """A line such as `1,200/5,000 images, 431/s, 0:08 left`."""
    rate = done / max(seconds, 1e-9)
    rate_text = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s"
    if total is None:
        return f"{done:,} {noun}, {rate_text}"
    left = round(max(total - done, 0) / rate)  # videos can be longer than their header says
    return f"{done:,}/{total:,} {noun}, {rate_text}, {duration(left)} left"


def duration(seconds: int) -> str:
    """Seconds as text, such as `0:08` or `1:02:03`."""
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
