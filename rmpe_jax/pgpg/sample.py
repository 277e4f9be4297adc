"""Box proposals for training: what stands in for a person's own box. NumPy only, and fast."""

import dataclasses
import math
import os
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Num

from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.pgpg.model import (
    SMALLEST_SIDE,
    PgpgModel,
    boxes_at,
    global_model,
    load_model,
    rows_of,
)
from rmpe_jax.skeletons import Skeleton

Mode = Literal["none", "jitter", "global", "atomic"]
MODES = get_args(Mode)

SMALLEST_PATCH = 0.7  # of the person's sides, as in the RMPE release
JITTER_IOU = 0.5
_JITTER_TRIES = 32


def sample_boxes(
    model: PgpgModel,
    rng: np.random.Generator,
    keypoints: Float[np.ndarray, "n k 2"],
    gt_bboxes: Float[np.ndarray, "n 4"],
    num: int,
    visibility: Num[np.ndarray, "n k"] | None = None,
) -> Float[np.ndarray, "n num 4"]:
    """Draw boxes as a detector would give them, for each person by the atom of its pose.

    Args:
      model: for keypoints in this order, see `PgpgModel.for_skeleton`.
      rng: source of all randomness.
      keypoints: image pixels; NaN where not known.
      gt_bboxes: xyxy image pixels.
      num: boxes for each person.
      visibility: 0 where a keypoint is not known.

    Returns:
      xyxy image pixels, not clipped to the picture; sides are at least `SMALLEST_SIDE`.
    """
    return _not_too_small(_sample(model, rng, keypoints, gt_bboxes, num, visibility))


def _sample(
    model: PgpgModel,
    rng: np.random.Generator,
    keypoints: Float[np.ndarray, "n k 2"],
    gt_bboxes: Float[np.ndarray, "n 4"],
    num: int,
    visibility: Num[np.ndarray, "n k"] | None,
) -> Float[np.ndarray, "n num 4"]:
    """`sample_boxes` of any size, even inside out."""
    row = rows_of(model, keypoints, visibility)[:, None]
    uniform = rng.random((len(keypoints), num, 1))
    component = (uniform >= model.upper_shares[row]).sum(-1)
    noise = rng.standard_normal((len(keypoints), num, 4, 1))
    offsets = model.means[row, component] + (model.factors[row, component] @ noise)[..., 0]
    return boxes_at(offsets, gt_bboxes[:, None])


def jitter_boxes(
    rng: np.random.Generator, gt_bboxes: Float[np.ndarray, "n 4"], num: int
) -> Float[np.ndarray, "n num 4"]:
    """Boxes moved and stretched at random, with an IoU above 0.5 (P17's "random jittering").

    The centre moves by up to a third of width and height and each side changes by a factor of 1/2
    to 2, as far as either alone may go; the first of 32 such boxes that keeps the IoU is taken,
    and the person's own box if none does.
    """
    n = len(gt_bboxes)
    size = geometry.xywh_from_xyxy(gt_bboxes)[:, None, None, 2:]
    center = (gt_bboxes[:, :2] + gt_bboxes[:, 2:])[:, None, None] / 2
    center = center + rng.uniform(-1 / 3, 1 / 3, (n, num, _JITTER_TRIES, 2)) * size
    half = size / 2 * np.exp(rng.uniform(-math.log(2), math.log(2), (n, num, _JITTER_TRIES, 2)))
    boxes = np.concatenate([center - half, center + half], -1)
    boxes = np.concatenate([boxes, np.broadcast_to(gt_bboxes[:, None, None], (n, num, 1, 4))], -2)
    iou = geometry.box_iou(boxes, gt_bboxes[:, None, None])[..., 0]
    first = (iou > JITTER_IOU).argmax(-1)
    chosen = np.take_along_axis(boxes, first[..., None, None], -2)[..., 0, :]
    return chosen.astype(np.float32)


def patch_boxes(
    rng: np.random.Generator, gt_bboxes: Float[np.ndarray, "n 4"], num: int
) -> Float[np.ndarray, "n num 4"]:
    """Parts of the people's boxes: sides 0.7 to 1 times theirs, aspect kept, anywhere inside.

    (The RMPE release places these within the box grown by 30 %; here the crop's padding comes
    after.)
    """
    size = geometry.xywh_from_xyxy(gt_bboxes)[:, None, 2:]
    share = rng.uniform(SMALLEST_PATCH, 1, (len(gt_bboxes), num, 1))
    low = gt_bboxes[:, None, :2] + rng.random((len(gt_bboxes), num, 2)) * (1 - share) * size
    return np.concatenate([low, low + share * size], -1).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Proposals:
    """Which boxes people are cropped by in training.

    Attributes:
      mode: "none" the person's own box, "jitter" of `jitter_boxes`, "global" one Gaussian with the
        author's constants, "atomic" of a fitted model.
      patch_prob: chance of a box of `patch_boxes` instead (0.3 in the RMPE release).
      model: what "global" and "atomic" sample from, for the order of keypoints given.
    """

    mode: Mode = "none"
    patch_prob: float = 0.0
    model: PgpgModel | None = None

    def draw(
        self,
        rng: np.random.Generator,
        bbox: Float[np.ndarray, " 4"],
        keypoints: Float[np.ndarray, "k 2"],
        visibility: Num[np.ndarray, " k"],
        size: tuple[int, int],
    ) -> tuple[Float[np.ndarray, " 4"], Float[np.ndarray, " 4"]]:
        """Two boxes for one crop of a person, xyxy image pixels.

        The first is the well-placed one, which a spatial transformer should find: the person's own,
        or the patch, for a patch is to stay as it is (RMPE release). The second is to be cropped,
        clipped to a picture of `size`. With mode "none" and no patches both are `bbox` as it is,
        and nothing is drawn from `rng`.
        """
        if self.patch_prob and rng.random() < self.patch_prob:
            patch = _clipped(patch_boxes(rng, bbox[None], 1)[0, 0], size)
            return patch, patch
        if self.mode == "jitter":
            return bbox, _clipped(jitter_boxes(rng, bbox[None], 1)[0, 0], size)
        if self.model is not None:
            people = keypoints[None], bbox[None], 1, visibility[None]
            return bbox, _clipped(_sample(self.model, rng, *people)[0, 0], size)
        return bbox, bbox


NO_PROPOSALS = Proposals()


def open_proposals(
    mode: Mode, model_path: str | os.PathLike, patch_prob: float, skeleton: Skeleton
) -> Proposals:
    """Proposals for keypoints of `skeleton`; `model_path` counts for "atomic" only.

    Raises:
      UserError: the mode is unknown, or the model is missing or none.
    """
    if mode not in MODES:
        raise UserError(f"no box proposals are called {mode!r}: use one of {', '.join(MODES)}")
    if mode in ("none", "jitter"):
        return Proposals(mode, patch_prob)
    if mode == "atomic" and not model_path:
        raise UserError("atomic proposals need a model: write one with rmpe fit-pgpg")
    model = load_model(model_path) if mode == "atomic" else global_model()
    return Proposals(mode, patch_prob, model.for_skeleton(skeleton))


def _clipped(bbox: Float[np.ndarray, " 4"], size: tuple[int, int]) -> Float[np.ndarray, " 4"]:
    return _not_too_small(geometry.clip_boxes(bbox, size))


def _not_too_small(bboxes: Float[np.ndarray, "*n 4"]) -> Float[np.ndarray, "*n 4"]:
    """Sides grown to `SMALLEST_SIDE` about the centre, also where they are inside out."""
    center = (bboxes[..., :2] + bboxes[..., 2:]) / 2
    half = np.maximum(bboxes[..., 2:] - bboxes[..., :2], SMALLEST_SIDE) / 2
    return np.concatenate([center - half, center + half], -1).astype(np.float32)
