"""NMS of results in COCO's form: pictures to arrays, and what is left back to results."""

import collections
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.evaluation.results import ImageId, coco_results
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import bucket_size, pad_people
from rmpe_jax.pose_nms import NmsResult, PoseCandidates, load_params, pose_nms_batch
from rmpe_jax.pose_nms.baselines import box_nms, oks_nms, soft_oks_nms
from rmpe_jax.skeletons import Skeleton

Nms = Callable[[PoseCandidates], NmsResult]  # of a batch of pictures

BASELINES = ("none", "box", "oks", "soft_oks")


def open_nms(name: str, skeleton: Skeleton) -> Nms | None:
    """The NMS of a name, for `apply_nms`; None for `none`.

    Args:
      name: one of `BASELINES`, a preset of pose NMS (`paper`, `rmpe`, `alphapose`), or the
        params.json that `rmpe fit-nms` wrote.
      skeleton: joint set of the poses.

    Raises:
      UserError: it is none of these.
    """
    if name == "none":
        return None
    if name not in BASELINES:
        return functools.partial(pose_nms_batch, params=load_params(name), skeleton=skeleton)
    baselines = {
        "box": box_nms,
        "oks": functools.partial(oks_nms, sigmas=skeleton.sigmas),
        "soft_oks": functools.partial(soft_oks_nms, sigmas=skeleton.sigmas),
    }
    return jax.jit(jax.vmap(baselines[name]))


def apply_nms(
    results: Sequence[dict],
    num_keypoints: int,
    image_ids: Sequence[ImageId],
    nms: Nms,
) -> list[dict]:
    """The results that NMS leaves, with its keypoints and scores.

    Args:
      results: before NMS, with `bbox` and `bbox_score`, as `results.coco_results` makes them.
      num_keypoints: k.
      image_ids: pictures; results of others are left out.
      nms: of a batch of pictures, such as `lambda proposals: pose_nms_batch(proposals, params)`.
    """
    left = []
    for proposals, names in zip(*candidate_groups(results, num_keypoints, image_ids), strict=True):
        poses = jax.device_get(nms(proposals))
        picture, person = np.nonzero(poses.keep)
        left += coco_results(
            [names[i] for i in picture],
            poses.keypoints[picture, person],
            poses.keypoint_scores[picture, person],
            poses.scores[picture, person],
            np.asarray(proposals.bboxes)[picture, person],
            np.asarray(proposals.bbox_scores)[picture, person],
        )
    return left


def candidate_groups(
    results: Sequence[dict], num_keypoints: int, image_ids: Sequence[ImageId]
) -> tuple[list[PoseCandidates], list[list[ImageId]]]:
    """Results as proposals for NMS, in groups of pictures with about as many people.

    Arguments as in `apply_nms`.

    Returns:
      The groups, each padded to its own number of people, and the pictures of each group.
    """
    found = collections.defaultdict(list)
    for result in results:
        found[result["image_id"]].append(result)
    groups = collections.defaultdict(list)
    for image_id in image_ids:
        groups[bucket_size(len(found[image_id]))].append(image_id)
    sizes = sorted(groups)
    proposals = [
        _proposals([found[name] for name in groups[size]], num_keypoints, size) for size in sizes
    ]
    return proposals, [groups[size] for size in sizes]


def _proposals(results: Sequence[Sequence[dict]], num_keypoints: int, size: int) -> PoseCandidates:
    """Of pictures with at most `size` results each."""
    index = np.repeat(np.arange(len(results)), [len(r) for r in results])
    flat = [result for of_picture in results for result in of_picture]
    joints = _floats([r["keypoints"] for r in flat], num_keypoints, 3)
    columns = (
        joints[..., :2],
        joints[..., 2],
        geometry.xyxy_from_xywh(_floats([r["bbox"] for r in flat], 4)),
        _floats([r["bbox_score"] for r in flat]),
    )
    valid, padded = pad_people(index, len(results), size, *columns)
    keypoints, scores, bboxes, bbox_scores = map(jnp.asarray, padded)
    return PoseCandidates(keypoints, scores, bboxes, bbox_scores, jnp.asarray(valid))


def _floats(values: Sequence, *shape: int) -> np.ndarray:
    return np.array(values, np.float32).reshape(-1, *shape)
