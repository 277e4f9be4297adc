"""Benchmarks' metrics on files and arrays: COCO's and MPII's average precision, and PCKh."""

from rmpe_jax.evaluation.coco import box_ap, coco_ap
from rmpe_jax.evaluation.mpii import mpii_map
from rmpe_jax.evaluation.pckh import pckh

__all__ = ["box_ap", "coco_ap", "mpii_map", "pckh"]
