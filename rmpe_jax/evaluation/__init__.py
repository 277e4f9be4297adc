"""Metrics of the benchmarks: average precision of COCO and MPII, and PCKh."""

from rmpe_jax.evaluation.coco import box_ap, coco_ap
from rmpe_jax.evaluation.mpii import mpii_map
from rmpe_jax.evaluation.pckh import pckh

__all__ = ["box_ap", "coco_ap", "mpii_map", "pckh"]
