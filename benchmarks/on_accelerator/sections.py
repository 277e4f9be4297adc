"""The sections of the benchmark, and a process that runs them."""

import importlib
import os
import pathlib
from typing import Any

from on_accelerator.report import Report, brief

# In the order that they are run in: module and function. If one breaks the device, `run` ends its
# process and the next ones get another; so each network is trained in a section of its own.
SECTIONS = {
    "machine": ("machine", "measure"),
    "training_r50": ("training", "measure_r50"),
    "training_vit": ("training", "measure_vit"),
    "training_rmpe": ("training", "measure_rmpe"),
    "attention": ("training", "measure_attention"),
    "inference": ("inference", "measure"),
    "nms": ("inference", "measure_nms"),
    "sampler": ("sampler", "measure"),
    "loop": ("loop", "measure"),
    "sizes_r50": ("training", "measure_sizes_r50"),
    "sizes_vit": ("training", "measure_sizes_vit"),
    "sizes_rmpe": ("training", "measure_sizes_rmpe"),
}


def run(
    names: list[str], begun: Any, path: pathlib.Path, deadline: float, out: pathlib.Path, tiny: bool
) -> None:
    """Runs sections one after the other, in a process of their own.

    A section that cannot start gives a line with its error. If the device does not answer after a
    section, the process ends; the sections after it can then be run in another one.

    Args:
      names: of the sections.
      begun: shared integer: how many sections were begun.
      path: of the JSON lines.
      deadline: as in `Report`.
      out: folder of further files.
      tiny: toy sizes.
    """
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")
    report = Report(path, deadline)
    for index, name in enumerate(names):
        begun.value = index + 1
        module, function = SECTIONS[name]
        try:
            part = importlib.import_module(f"on_accelerator.{module}")
            getattr(part, function)(report, out, tiny)
        except Exception as error:
            report.add(name, "section", error=brief(error))
        _require_device()


def _require_device() -> None:
    """Raises what the device says to a small sum."""
    import jax.numpy as jnp

    (jnp.ones(8) + 1).block_until_ready()
