"""COCO's average precision of poses with feet, faces and hands, for all joints and for each part.

As in the evaluation of COCO-WholeBody (Jin et al., ECCV 2020): OKS uses the sigmas of the part and
the area of the person. People without a labeled joint in the part are ignored there.
"""

from collections.abc import Sequence

from rmpe_jax.evaluation.coco import Annotations, coco_ap, coco_content, load_ground_truth, pose_ap
from rmpe_jax.skeletons import Skeleton


def whole_body_ap(
    annotations: Annotations,
    results: list[dict],
    skeleton: Skeleton,
    image_ids: Sequence[int | str] | None = None,
) -> dict[str, float]:
    """`coco_ap` of all joints, and of each part as `body/AP`, `body/AR`, `foot/AP`, ….

    Args:
      annotations: a dataset, or COCO's format with all joints of `skeleton` in "keypoints".
      results: COCO's result format with the same joints.
      skeleton: the joint set and its parts.
      image_ids: images to evaluate on; by default all.

    Returns:
      The metrics; -1 for a part that is not labeled at all.

    Raises:
      UserError: as `coco_ap`.
    """
    dataset = load_ground_truth(annotations, skeleton)
    metrics = coco_ap(dataset, results, skeleton.oks_sigmas, image_ids)
    content = coco_content(dataset)
    for name, part in skeleton.parts.items():
        truth = [_part_of(person, part) for person in content["annotations"]]
        found = pose_ap(
            {**content, "annotations": truth},
            [_part_of(result, part) for result in results],
            skeleton.oks_sigmas[part],
            image_ids,
        )
        metrics |= {f"{name}/{metric}": found[metric] for metric in ("AP", "AR")}
    return metrics


def _part_of(record: dict, part: slice) -> dict:
    """A person or a result with only the joints of a part."""
    keypoints = record["keypoints"][3 * part.start : 3 * part.stop]
    return {**record, "keypoints": keypoints, "num_keypoints": sum(v > 0 for v in keypoints[2::3])}
