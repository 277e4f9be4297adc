"""Metrics of benchmarks on files and arrays: COCO's and MPII's average precision, and PCKh."""

import importlib
from typing import TYPE_CHECKING, Any

# At once, not on first use: it bears the name of its module, which would take its place.
from rmpe_jax.evaluation.pckh import pckh

if TYPE_CHECKING:
    from rmpe_jax.evaluation.coco import box_ap, coco_ap
    from rmpe_jax.evaluation.mpii import mpii_map

__all__ = ["box_ap", "coco_ap", "mpii_map", "pckh"]

# On first use: prediction reads result files with a module of this package, without pycocotools.
_MODULES = {"box_ap": "coco", "coco_ap": "coco", "mpii_map": "mpii"}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
