"""Keeps what image decoders write to stderr out of the terminal, and counts it.

libpng and libjpeg report odd metadata and damage that they can read past: they write to the file
descriptor 2 themselves, without the name of the file. During a run a small process, this file as a
program, stands between that descriptor and the terminal. It drops such lines and passes on all
others, also the last words of a crash, for which a thread would be too late. Python's own stderr
and log go to the terminal directly.
"""

import collections
import contextlib
import logging
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TextIO

_MESSAGE = re.compile(
    rb"libpng (warning|error): |Corrupt JPEG data: |Premature end of JPEG file"
    rb"|Inconsistent progression sequence|Invalid SOS parameters|Unknown Adobe color transform"
    rb"|Warning: unknown JFIF revision"
)
_SHOWN = 3  # different messages in the count
_WAIT_SECONDS = 2.0  # for the count


@contextlib.contextmanager
def without_decoder_messages() -> Iterator[None]:
    """A block without messages of image decoders on stderr; one line at its end counts them.

    Messages are shown if the process cannot be started, as in a frozen application.
    """
    process = _start_filter()
    if process is None:
        yield
        return
    sys.stderr.flush()
    shown = os.dup(2)
    with open(shown, "w", encoding="utf-8", errors="backslashreplace", buffering=1) as terminal:
        assert process.stdin is not None
        with process.stdin as pipe:
            os.dup2(pipe.fileno(), 2)
        try:
            with _python_stderr(terminal):
                yield
        finally:
            os.dup2(shown, 2)
            # This is the end of the process's input, unless another process that was started in the
            # block is still alive: the filter serves it, and ends after it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_WAIT_SECONDS)


def _start_filter() -> subprocess.Popen | None:
    """This file as a process; None if it cannot be started."""
    if not sys.executable or getattr(sys, "frozen", False):  # then no Python can be started
        return None
    command = [sys.executable, "-I", "-S", __file__]
    try:
        # In a session of its own, because Ctrl-C is not meant for it.
        return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    except OSError:
        return None


@contextlib.contextmanager
def _python_stderr(new: TextIO) -> Iterator[None]:
    """A block in which `sys.stderr` and the log write to `new`, if they write to descriptor 2."""
    old = sys.stderr
    try:
        is_descriptor = old.fileno() == 2
    except (OSError, ValueError):  # a file in memory
        is_descriptor = False
    streams = [h for h in logging.getLogger().handlers if isinstance(h, logging.StreamHandler)]
    handlers = [handler for handler in streams if is_descriptor and handler.stream is old]
    sys.stderr = new if is_descriptor else old
    for handler in handlers:
        handler.setStream(new)
    try:
        yield
    finally:
        sys.stderr = old
        for handler in handlers:
            handler.setStream(old)


def _filter() -> None:
    """Passes lines from stdin to stderr, without messages of decoders."""
    dropped: collections.Counter[str] = collections.Counter()
    for line in sys.stdin.buffer:
        if _MESSAGE.match(line):
            dropped[line.decode(errors="replace").strip()] += 1
        elif line.strip():  # threads mix up libpng's lines and their ends
            sys.stderr.buffer.write(line)
            sys.stderr.buffer.flush()
    if dropped:
        shown = ", ".join(f"{n} x {text}" for text, n in dropped.most_common(_SHOWN))
        more = ", ..." if len(dropped) > _SHOWN else ""
        line = f"image decoders reported damage or odd metadata {dropped.total():,} times"
        print(f"{line}: {shown}{more}", file=sys.stderr)


if __name__ == "__main__":
    _filter()
