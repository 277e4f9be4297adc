"""Multi-person scenes drawn from a seed, with exact COCO annotations and a detector's boxes."""

from rmpe_jax.data.synthetic.coco import coco_annotations, coco_detections, write_coco_folder
from rmpe_jax.data.synthetic.detector import Detections
from rmpe_jax.data.synthetic.placement import MAX_PEOPLE
from rmpe_jax.data.synthetic.scene import SIZE, Scene, scene

__all__ = [
    "MAX_PEOPLE",
    "SIZE",
    "Detections",
    "Scene",
    "coco_annotations",
    "coco_detections",
    "scene",
    "write_coco_folder",
]
