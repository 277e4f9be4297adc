"""Metrics of benchmarks on files and arrays: COCO's and MPII's average precision, and PCKh."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmpe_jax.evaluation.coco import box_ap, coco_ap
    from rmpe_jax.evaluation.mpii import mpii_map
    from rmpe_jax.evaluation.pckh import pckh

__all__ = ["box_ap", "coco_ap", "mpii_map", "pckh"]

# On first use: prediction reads result files with a module of this package, without pycocotools.
_MODULES = {"box_ap": "coco", "coco_ap": "coco", "mpii_map": "mpii", "pckh": "pckh"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
