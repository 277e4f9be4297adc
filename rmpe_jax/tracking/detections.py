"""The people found in the frames of a video, as arrays of a fixed size."""

from typing import Any, NamedTuple

from jaxtyping import Bool, Float

from rmpe_jax.ops.geometry import AnyArray

_LARGEST = 1e6  # pixels; a coordinate beyond it is an error of the source, and its square overflows


class Detections(NamedTuple):
    """The people of one frame, padded to n; rows that are not valid are arbitrary.

    For a video, every array has a leading axis of frames.

    Attributes:
      keypoints: image pixels. A joint that is not finite counts as not found.
      keypoint_scores: 0 to 1.
      bboxes: xyxy image pixels. A person whose box is not finite counts as not valid.
      scores: of the person, 0 to 1.
      valid: where there is a person.
    """

    keypoints: Float[Any, "*f n k 2"]
    keypoint_scores: Float[Any, "*f n k"]
    bboxes: Float[Any, "*f n 4"]
    scores: Float[Any, "*f n"]
    valid: Bool[Any, "*f n"]


def clean(detections: Detections) -> Detections:
    """The same people with finite values: arrays of NumPy or JAX, float32, nothing else changed.

    People whose box or score is not finite are not valid, and all of their values are 0. Joints
    that are not finite lie at 0 with score 0. Boxes are at least one pixel wide and high.
    """
    xp = detections.keypoints.__array_namespace__()
    known_box = xp.all(_is_usable(detections.bboxes), -1) & xp.isfinite(detections.scores)
    valid = detections.valid & known_box
    known = xp.all(_is_usable(detections.keypoints), -1)
    known = known & xp.isfinite(detections.keypoint_scores) & valid[..., None]
    low = xp.where(valid[..., None], detections.bboxes[..., :2], 0)
    high = xp.where(valid[..., None], detections.bboxes[..., 2:], 0)
    columns = (
        xp.where(known[..., None], detections.keypoints, 0),
        xp.where(known, detections.keypoint_scores, 0),
        xp.concatenate([low, xp.maximum(high, low + 1)], -1),
        xp.where(valid, detections.scores, 0),
    )
    keypoints, keypoint_scores, bboxes, scores = (v.astype(xp.float32) for v in columns)
    return Detections(keypoints, keypoint_scores, bboxes, scores, valid)


def _is_usable(coordinates: Float[AnyArray, "*n"]) -> Bool[AnyArray, "*n"]:
    """Where a coordinate is finite and not absurdly large."""
    return abs(coordinates) < _LARGEST
