"""Memory in pages of 2 MiB, for programs on a CPU."""

import os
import pathlib
import sys

_VARIABLE, _VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_with_huge_pages() -> None:
    """Starts this process again, with huge pages for the memory that glibc gives out.

    On a CPU, XLA takes the memory for a step from the system and gives it back afterwards. Linux
    clears it page by page, which takes up to a third of the time of a training step if the pages
    have 4 KiB. glibc reads the setting only when a process starts.

    Does nothing unless Linux gives huge pages on request, or if the variable of glibc is set
    already, or if the process is more than `python FILE ARGUMENTS`: a debugger or a notebook stays
    as it is.
    """
    direct = sys.orig_argv[1:] == sys.argv
    if _VARIABLE in os.environ or not direct or not _on_request():
        return
    os.environ[_VARIABLE] = _VALUE
    os.execv(sys.executable, [sys.executable, *sys.argv])


def _on_request() -> bool:
    try:
        return "[madvise]" in _SETTING.read_text()
    except OSError:
        return False
