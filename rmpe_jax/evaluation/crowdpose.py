"""CrowdPose's average precision (Li et al., CVPR 2019): COCO's, also by how crowded images are.

As in its evaluation code (type `keypoints_crowd` of xtcocotools): s² of OKS is .53 times the area
of the box, because there are no segments; people without a visible joint are ignored; images with a
crowd index below .2 are easy, those below .8 medium, all others hard.
"""

import logging

from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.evaluation.coco import coco_content, pose_ap, warn_of_nobody

METRICS = ("AP", "AP50", "AP75", "AR", "AR50", "AR75", "AP_easy", "AP_medium", "AP_hard")

_AREA_OF_BOX = 0.53
_EASY, _MEDIUM = 0.2, 0.8  # the limits of the crowd index


def crowdpose_ap(dataset: PoseDataset, results: list[dict]) -> dict[str, float]:
    """Average precision and recall of poses, and the precision on easy, medium and hard images.

    Args:
      dataset: the annotated images. Those without a crowd index count only in the first six
        metrics; their number is logged.
      results: in COCO's result format and the joint set of the dataset.

    Returns:
      `METRICS` as fractions; -1 where nobody is annotated.

    Raises:
      UserError: as `coco.coco_ap`.
    """
    content = coco_content(dataset)
    content["annotations"] = [_by_protocol(person) for person in content["annotations"]]
    sigmas = dataset.skeleton.oks_sigmas
    metrics = pose_ap(content, results, sigmas)
    warn_of_nobody(dataset, metrics)
    levels = {"AP_easy": [], "AP_medium": [], "AP_hard": []}
    for record in dataset.images:
        if record.crowd_index is not None:
            levels[_level(record.crowd_index)].append(record.image_id)
    if unknown := len(dataset.images) - sum(map(len, levels.values())):
        line = "%s: images without crowdIndex, neither easy, medium nor hard: %d"
        logging.getLogger(__name__).warning(line, dataset.name, unknown)
    for level, image_ids in levels.items():
        metrics[level] = pose_ap(content, results, sigmas, image_ids)["AP"]
    return {name: metrics[name] for name in METRICS}


def _level(crowd_index: float) -> str:
    if crowd_index < _EASY:
        return "AP_easy"
    return "AP_medium" if crowd_index < _MEDIUM else "AP_hard"


def _by_protocol(person: dict) -> dict:
    """A person with the area and the number of joints that the protocol uses."""
    _, _, width, height = person["bbox"]
    visible = sum(v == 2 for v in person["keypoints"][2::3])
    return {**person, "area": _AREA_OF_BOX * width * height, "num_keypoints": visible}
