"""Box proposals for training, used in place of a person's own box. NumPy only, and fast."""

import dataclasses
import math
import os
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Num

from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.pgpg.model import (
    MIN_SIDE,
    PgpgModel,
    boxes_from_offsets,
    global_model,
    load_pgpg,
    mixture_rows,
)
from rmpe_jax.skeletons import Skeleton

Mode = Literal["none", "jitter", "global", "atomic"]
MODES = get_args(Mode)

MIN_PATCH_FRACTION = 0.7  # of the sides of the person's box, as in the RMPE release
JITTER_IOU = 0.5
_JITTER_TRIES = 32
_MATCHED_BOXES = 2000  # drawn to find the median IoU of a strength


def sample_boxes(
    model: PgpgModel,
    rng: np.random.Generator,
    keypoints: Float[np.ndarray, "n k 2"],
    gt_bboxes: Float[np.ndarray, "n 4"],
    num: int,
    visibility: Num[np.ndarray, "n k"] | None = None,
) -> Float[np.ndarray, "n num 4"]:
    """Draw boxes as a detector would find them, for each person from the mixture of its pose.

    Args:
      model: for keypoints in this order, see `PgpgModel.for_skeleton`.
      rng: source of all randomness.
      keypoints: image pixels; NaN where unknown.
      gt_bboxes: people's own boxes, xyxy image pixels.
      num: boxes per person.
      visibility: 0 where a keypoint is unknown.

    Returns:
      xyxy image pixels, not clipped to the image; sides are at least `MIN_SIDE`.
    """
    return _with_min_side(_sample(model, rng, keypoints, gt_bboxes, num, visibility))


def _sample(
    model: PgpgModel,
    rng: np.random.Generator,
    keypoints: Float[np.ndarray, "n k 2"],
    gt_bboxes: Float[np.ndarray, "n 4"],
    num: int,
    visibility: Num[np.ndarray, "n k"] | None,
) -> Float[np.ndarray, "n num 4"]:
    """`sample_boxes` without a lower bound on the size, which may even be negative."""
    row = mixture_rows(model, keypoints, visibility)[:, None]
    uniform = rng.random((len(keypoints), num, 1))
    component = (uniform >= model.cumulative_weights[row]).sum(-1)
    noise = rng.standard_normal((len(keypoints), num, 4, 1))
    offsets = model.means[row, component] + (model.factors[row, component] @ noise)[..., 0]
    return boxes_from_offsets(offsets, gt_bboxes[:, None])


def jitter_boxes(
    rng: np.random.Generator,
    gt_bboxes: Float[np.ndarray, "n 4"],
    num: int,
    strength: float = 1.0,
) -> Float[np.ndarray, "n num 4"]:
    """Boxes that are moved and scaled at random, with an IoU above 0.5 (P17's "random jittering").

    With strength 1, the center moves by up to a third of width and height, and each side changes by
    a factor of 1/2 to 2; either alone can just reach that IoU. Of 32 such boxes the first with a
    high enough IoU is taken, or the person's own box if there is none. Their median IoU is .56.

    Args:
      rng: source of all randomness.
      gt_bboxes: people's own boxes, xyxy image pixels.
      num: boxes per person.
      strength: factor on the range of movements and of the logarithms of factors; see
        `jitter_strength`.
    """
    n = len(gt_bboxes)
    move, stretch = strength / 3, strength * math.log(2)
    size = geometry.xywh_from_xyxy(gt_bboxes)[:, None, None, 2:]
    center = (gt_bboxes[:, :2] + gt_bboxes[:, 2:])[:, None, None] / 2
    center = center + rng.uniform(-move, move, (n, num, _JITTER_TRIES, 2)) * size
    half = size / 2 * np.exp(rng.uniform(-stretch, stretch, (n, num, _JITTER_TRIES, 2)))
    boxes = np.concatenate([center - half, center + half], -1)
    boxes = np.concatenate([boxes, np.broadcast_to(gt_bboxes[:, None, None], (n, num, 1, 4))], -2)
    iou = geometry.box_iou(boxes, gt_bboxes[:, None, None])[..., 0]
    first = (iou > JITTER_IOU).argmax(-1)
    chosen = np.take_along_axis(boxes, first[..., None, None], -2)[..., 0, :]
    return chosen.astype(np.float32)


def jitter_strength(median_iou: float) -> float:
    """The strength at which half of the boxes of `jitter_boxes` have at least this IoU.

    With the median IoU of a detector's boxes, random jitter is as strong as the detector's errors
    and differs from them in kind alone.

    Args:
      median_iou: less than 1. If it is below that of strength 1, the result is 1.
    """
    person = np.array([[0, 0, 1, 1]], np.float32)
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        boxes = jitter_boxes(np.random.default_rng(0), person, _MATCHED_BOXES, middle)[0]
        if np.median(geometry.box_iou(boxes, person)) > median_iou:
            low = middle
        else:
            high = middle
    return high


def patch_boxes(
    rng: np.random.Generator, gt_bboxes: Float[np.ndarray, "n 4"], num: int
) -> Float[np.ndarray, "n num 4"]:
    """Random parts of people's boxes: 0.7 to 1 times their sides, with the same aspect ratio.

    The RMPE release places these parts inside the box grown by 30 %. Here they are inside the box
    itself, because the crop's padding is added later.
    """
    size = geometry.xywh_from_xyxy(gt_bboxes)[:, None, 2:]
    fraction = rng.uniform(MIN_PATCH_FRACTION, 1, (len(gt_bboxes), num, 1))
    low = gt_bboxes[:, None, :2] + rng.random((len(gt_bboxes), num, 2)) * (1 - fraction) * size
    return np.concatenate([low, low + fraction * size], -1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Proposals:
    """The boxes that people are cropped by in training.

    Attributes:
      mode: "none", the person's own box; "jitter", a box of `jitter_boxes`; "global", a sample of
        one Gaussian with the author's constants; "atomic", a sample of a fitted model.
      patch_prob: probability of a box of `patch_boxes` instead (0.3 in the RMPE release).
      model: the model that "global" and "atomic" sample from, for the order of the keypoints.
      jitter_strength: of `jitter_boxes`.
    """

    mode: Mode = "none"
    patch_prob: float = 0.0
    model: PgpgModel | None = None
    jitter_strength: float = 1.0

    def draw(
        self,
        rng: np.random.Generator,
        bbox: Float[np.ndarray, " 4"],
        keypoints: Float[np.ndarray, "k 2"],
        visibility: Num[np.ndarray, " k"],
        size: tuple[int, int],
    ) -> tuple[Float[np.ndarray, " 4"], Float[np.ndarray, " 4"]]:
        """Draw two boxes for one crop of a person.

        With mode "none" and no patches both are `bbox` itself, and `rng` is not used.

        Args:
          rng: source of all randomness.
          bbox: the person's own box, xyxy image pixels.
          keypoints: image pixels.
          visibility: 0 where a keypoint is unknown.
          size: (height, width) of the image.

        Returns:
          The well-placed box, which a spatial transformer should find: the person's own box, or the
          patch, because a patch should stay as it is (RMPE release). And the box to crop, clipped
          to the image. Both are xyxy image pixels.
        """
        if self.patch_prob and rng.random() < self.patch_prob:
            patch = _clipped(patch_boxes(rng, bbox[None], 1)[0, 0], size)
            return patch, patch
        if self.mode == "jitter":
            jittered = jitter_boxes(rng, bbox[None], 1, self.jitter_strength)
            return bbox, _clipped(jittered[0, 0], size)
        if self.model is not None:
            people = keypoints[None], bbox[None], 1, visibility[None]
            return bbox, _clipped(_sample(self.model, rng, *people)[0, 0], size)
        return bbox, bbox


NO_PROPOSALS = Proposals()


def open_proposals(
    mode: str,
    model_path: str | os.PathLike,
    patch_prob: float,
    skeleton: Skeleton,
    jitter_strength: float = 1.0,
) -> Proposals:
    """Proposals for keypoints of `skeleton`.

    Args:
      mode: one of `MODES`.
      model_path: of the fitted model, for the mode "atomic" only.
      patch_prob: see `Proposals`.
      skeleton: of the keypoints.
      jitter_strength: of `jitter_boxes`, for the mode "jitter".

    Raises:
      UserError: the mode is unknown, or the model is missing or invalid.
    """
    match mode:
        case "none" | "jitter":
            return Proposals(mode, patch_prob, jitter_strength=jitter_strength)
        case "global":
            return Proposals(mode, patch_prob, global_model().for_skeleton(skeleton))
        case "atomic" if not model_path:
            raise UserError("atomic proposals need a model: write one with rmpe fit-pgpg")
        case "atomic":
            return Proposals(mode, patch_prob, load_pgpg(model_path).for_skeleton(skeleton))
    raise UserError(f"no box proposals are called {mode!r}: use one of {', '.join(MODES)}")


def _clipped(bbox: Float[np.ndarray, " 4"], size: tuple[int, int]) -> Float[np.ndarray, " 4"]:
    return _with_min_side(geometry.clip_boxes(bbox, size))


def _with_min_side(bboxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """Grow sides around the center to at least `MIN_SIDE`, even if they are negative."""
    center = (bboxes[..., :2] + bboxes[..., 2:]) / 2
    half = np.maximum(bboxes[..., 2:] - bboxes[..., :2], MIN_SIDE) / 2
    return np.concatenate([center - half, center + half], -1).astype(np.float32)
