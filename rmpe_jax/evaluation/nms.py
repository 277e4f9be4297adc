"""NMS of results in COCO's format: converts them to arrays and back."""

import collections
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from rmpe_jax.evaluation.results import ImageId, coco_results, keypoint_array
from rmpe_jax.ops import geometry
from rmpe_jax.ops.padding import bucket_size, pad_people
from rmpe_jax.pose_nms import NmsResult, PoseCandidates, load_params, pose_nms_batch
from rmpe_jax.pose_nms.baselines import box_nms, oks_nms, soft_oks_nms
from rmpe_jax.skeletons import Skeleton

Nms = Callable[[PoseCandidates], NmsResult]  # on a batch of images

BASELINES = ("none", "box", "oks", "soft_oks")


def open_nms(name: str, skeleton: Skeleton) -> Nms | None:
    """The NMS of a name, for `apply_nms`.

    Args:
      name: one of `BASELINES`, a preset of pose NMS (`paper`, `rmpe`, `alphapose`), or a
        params.json of `rmpe fit-nms`.
      skeleton: joint set of the poses.

    Returns:
      The NMS; None for `none`.

    Raises:
      UserError: the name is none of these.
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
    """The results after NMS, with the keypoints and scores that NMS gives them.

    Args:
      results: before NMS, with `bbox` and `bbox_score`, as `results.coco_results` makes them.
      num_keypoints: of each pose.
      image_ids: the images; results on others are dropped.
      nms: on a batch of images, such as `lambda batch: pose_nms_batch(batch, params)`.

    Raises:
      UserError: a result has another number of keypoints.
    """
    kept = []
    for group, names in zip(*candidate_groups(results, num_keypoints, image_ids), strict=True):
        poses = jax.device_get(nms(group))
        image, person = np.nonzero(poses.keep)
        kept += coco_results(
            [names[i] for i in image],
            poses.keypoints[image, person],
            poses.keypoint_scores[image, person],
            poses.scores[image, person],
            np.asarray(group.bboxes)[image, person],
            np.asarray(group.bbox_scores)[image, person],
        )
    return kept


def candidate_groups(
    results: Sequence[dict], num_keypoints: int, image_ids: Sequence[ImageId]
) -> tuple[list[PoseCandidates], list[list[ImageId]]]:
    """Results as arrays for NMS, in groups of images with similar numbers of poses.

    Args:
      results: before NMS, with `bbox` and `bbox_score`.
      num_keypoints: of each pose.
      image_ids: the images; results on others are dropped.

    Returns:
      The groups, each padded to its own number of poses, and the image ids of each group.

    Raises:
      UserError: a result has another number of keypoints.
    """
    found = collections.defaultdict(list)
    for result in results:
        found[result["image_id"]].append(result)
    groups = collections.defaultdict(list)
    for image_id in image_ids:
        groups[bucket_size(len(found[image_id]))].append(image_id)
    sizes = sorted(groups)
    candidates = [
        _candidates([found[name] for name in groups[size]], num_keypoints, size) for size in sizes
    ]
    return candidates, [groups[size] for size in sizes]


def _candidates(results: Sequence[Sequence[dict]], num_keypoints: int, size: int) -> PoseCandidates:
    """The results on each image, at most `size`, as arrays."""
    index = np.repeat(np.arange(len(results)), [len(r) for r in results])
    flat = [result for on_image in results for result in on_image]
    joints = keypoint_array(flat, num_keypoints).astype(np.float32)
    columns = (
        joints[..., :2],
        joints[..., 2],
        geometry.xyxy_from_xywh(_floats([r["bbox"] for r in flat], 4)),
        _floats([r["bbox_score"] for r in flat]),
    )
    valid, padded = pad_people(index, len(results), size, *columns)
    keypoints, scores, bboxes, bbox_scores = map(jnp.asarray, padded)
    return PoseCandidates(keypoints, scores, bboxes, bbox_scores, jnp.asarray(valid))


def _floats(values: Sequence, *shape: int) -> Float[np.ndarray, "n *shape"]:
    return np.array(values, np.float32).reshape(-1, *shape)
