"""Advice on the memory pages of training on a CPU.

XLA takes the memory of each step from the system and gives it back afterwards. Linux clears it page
by page, which takes up to a third of a step if the pages have 4 KiB. glibc can ask for pages of
2 MiB, but only if it is told so before the process starts.
"""

import os
import pathlib
import re

import jax

_SETTING = pathlib.Path("/sys/kernel/mm/transparent_hugepage/enabled")
_FIRST_VERSION = (2, 35)  # of glibc with this setting


def huge_pages_advice() -> str:
    """A line that says how to make training faster on this machine; empty if it would not."""
    if jax.default_backend() != "cpu" or "malloc.hugetlb" in os.environ.get("GLIBC_TUNABLES", ""):
        return ""
    if not _on_request() or _glibc() < _FIRST_VERSION:
        return ""
    return (
        "GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment makes training on a CPU faster, "
        "see docs/performance.md"
    )


def _on_request() -> bool:
    """Whether Linux gives huge pages to those who ask for them, not to all and not to nobody."""
    try:
        return "[madvise]" in _SETTING.read_text()
    except OSError:
        return False


def _glibc() -> tuple[int, ...]:
    """The version of glibc; (0,) for other libraries."""
    try:
        name = os.confstr("CS_GNU_LIBC_VERSION") or ""  # "glibc 2.36"
    except (OSError, ValueError, AttributeError):
        return (0,)
    return tuple(map(int, re.findall(r"\d+", name))) or (0,)
