"""Multi-person scenes generated from a seed, with exact COCO annotations and detector boxes."""

from rmpe_jax.data.synthetic.coco import coco_annotations, coco_detections, write_coco_folder
from rmpe_jax.data.synthetic.detector import ScoredBoxes
from rmpe_jax.data.synthetic.placement import MAX_PEOPLE
from rmpe_jax.data.synthetic.scene import SIZE, Scene, make_scene

__all__ = [
    "MAX_PEOPLE",
    "SIZE",
    "Scene",
    "ScoredBoxes",
    "coco_annotations",
    "coco_detections",
    "make_scene",
    "write_coco_folder",
]
