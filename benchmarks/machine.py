"""The machine and the versions that figures belong to; prints them as one JSON line.

  python benchmarks/machine.py

"cores" are those that this process may use, "load" is the load average of the last minute. Packages
that are not installed are left out.
"""

import contextlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re

PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "numpy", "pycocotools"),
    *("opencv-python", "opencv-python-headless", "torch"),
)


def describe() -> dict:
    """Processor, cores, memory, load and versions."""
    return {
        "cpu": cpu(),
        "cores": cores(),
        "memory_gb": round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9, 1),
        "load": round(os.getloadavg()[0], 1),
        "system": platform.platform(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "glibc_tunables": os.environ.get("GLIBC_TUNABLES", ""),
        "python": platform.python_version(),
        **versions(),
    }


def cpu() -> str:
    """The model of the processor, or at least its architecture."""
    listed = pathlib.Path("/proc/cpuinfo")
    text = listed.read_text(encoding="utf-8") if listed.exists() else ""
    model = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return model[1] if model else platform.processor() or platform.machine()


def cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def versions() -> dict[str, str]:
    """Versions of the installed ones of `PACKAGES`."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


if __name__ == "__main__":
    print(json.dumps({"benchmark": "machine", **describe()}))
