"""Simulates what a detector and a pose network find in a clip: with misses, doubles and noise.

Boxes are those of `detect`, frame by frame, of the people who are not missed because others hide
them. The pose in a box is that of the person it overlaps most. Errors of joints are normal with a
standard deviation in proportion to the joint's OKS sigma, larger for hidden joints, and are partly
the same from frame to frame, as those of networks are. A hidden joint may be that of the person in
front.
"""

from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Bool, Float, UInt8

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic.detector import detect
from rmpe_jax.data.synthetic.labels import OCCLUDED, VISIBLE
from rmpe_jax.data.synthetic.motion import Clip
from rmpe_jax.ops.geometry import box_iou

MAX_POSES = 32

_HIDDEN_FROM, _MISSED_FROM = 0.2, 0.8  # fraction of hidden joints: nobody, everybody is missed
_SAME_MISSES, _SAME_ERRORS = 0.8, 0.5  # correlation between frames that follow each other
_PERSON_IOU = 0.3  # of a box and the person whose pose is found in it
_SIZE = 2.5  # square root of a person's area, in sides of the box around the head
_VISIBLE_ERROR, _HIDDEN_ERROR = 0.8, 1.5  # standard deviations, in OKS sigmas
_OF_OTHER_PROB = 0.25  # of a hidden joint being that of the person who overlaps most
# Mean and standard deviation of joint scores.
_VISIBLE_SCORE, _HIDDEN_SCORE, _GUESSED_SCORE = (0.8, 0.1), (0.45, 0.15), (0.12, 0.06)

_FACE = slice(0, 5)  # COCO's first joints


class SimulatedPoses(NamedTuple):
    """What is found in f frames, up to m poses each, best first; padding has zeros.

    Attributes:
      keypoints: COCO's joints in image pixels.
      keypoint_scores: 0 to 1.
      bboxes: the detector's, xyxy image pixels.
      scores: of the boxes, 0 to 1.
      valid: False for padding.
    """

    keypoints: Float[np.ndarray, "f m 17 2"]
    keypoint_scores: Float[np.ndarray, "f m 17"]
    bboxes: Float[np.ndarray, "f m 4"]
    scores: Float[np.ndarray, "f m"]
    valid: Bool[np.ndarray, "f m"]


class _People(NamedTuple):
    """The people in one frame who are present, and the errors of their joints in OKS sigmas."""

    keypoints: Float[np.ndarray, "n 17 2"]
    visibility: UInt8[np.ndarray, "n 17"]
    bboxes: Float[np.ndarray, "n 4"]
    head_boxes: Float[np.ndarray, "n 4"]
    errors: Float[np.ndarray, "n 17 2"]


def detect_poses(clip: Clip, seed: int, max_poses: int = MAX_POSES) -> SimulatedPoses:
    """Simulate the poses found in a clip, before pose NMS.

    Args:
      clip: the annotations.
      seed: any integer >= 0; together with the clip it determines the poses.
      max_poses: per frame, m; of more, the boxes with the highest scores are kept.
    """
    rng = np.random.default_rng([seed, 4])  # each frame has its own, for any number of poses
    num_frames, num_people = clip.ids.shape
    luck = scipy.special.ndtr(_correlated(rng, (num_frames, num_people), _SAME_MISSES))
    too_hidden = (clip.hidden - _HIDDEN_FROM) / (_MISSED_FROM - _HIDDEN_FROM) > luck
    errors = _correlated(rng, (num_frames, num_people, 17, 2), _SAME_ERRORS)
    found = SimulatedPoses(
        np.zeros((num_frames, max_poses, 17, 2), np.float32),
        np.zeros((num_frames, max_poses, 17), np.float32),
        np.zeros((num_frames, max_poses, 4), np.float32),
        np.zeros((num_frames, max_poses), np.float32),
        np.zeros((num_frames, max_poses), bool),
    )
    for frame in range(num_frames):
        rng = np.random.default_rng([seed, 4, frame])
        present = clip.ids[frame] > 0
        columns = clip.keypoints, clip.visibility, clip.bboxes, clip.head_boxes, errors
        people = _People(*(column[frame, present] for column in columns))
        boxes = detect(clip.bboxes[frame, present & ~too_hidden[frame]], clip.size, rng)
        count = min(len(boxes.scores), max_poses)
        owners = _owners(boxes.bboxes, people)
        for place in range(count):
            pose = _pose(people, int(owners[place]), boxes.bboxes[place], rng)
            found.keypoints[frame, place], found.keypoint_scores[frame, place] = pose
        found.bboxes[frame, :count] = boxes.bboxes[:count]
        found.scores[frame, :count] = boxes.scores[:count]
        found.valid[frame, :count] = True
    return found


def _correlated(
    rng: np.random.Generator, shape: tuple[int, ...], correlation: float
) -> Float[np.ndarray, "..."]:
    """Standard normal numbers; those of frames that follow each other are correlated."""
    values = rng.standard_normal(shape)
    for frame in range(1, shape[0]):
        fresh = np.sqrt(1 - correlation**2) * values[frame]
        values[frame] = correlation * values[frame - 1] + fresh
    return values


def _owners(bboxes: Float[np.ndarray, "m 4"], people: _People) -> np.ndarray:
    """Index of the person in each box, -1 for nobody."""
    if not len(people.bboxes):
        return np.full(len(bboxes), -1)
    iou = box_iou(bboxes, people.bboxes)
    return np.where(iou.max(1) >= _PERSON_IOU, iou.argmax(1), -1)


def _pose(
    people: _People, owner: int, bbox: Float[np.ndarray, " 4"], rng: np.random.Generator
) -> tuple[Float[np.ndarray, "17 2"], Float[np.ndarray, " 17"]]:
    """Joints and scores that are found in a box."""
    low, high = bbox[:2], bbox[2:]
    anywhere = low + rng.uniform(0, 1, (17, 2)) * (high - low)
    guessed = np.clip(rng.normal(*_GUESSED_SCORE, 17), 0.01, 1)
    if owner < 0:
        return anywhere, guessed
    visibility = people.visibility[owner]
    truth = np.where(
        _of_other(people, owner, rng)[:, None], _other(people, owner), people.keypoints[owner]
    )
    head = people.head_boxes[owner]
    size = _SIZE * float(head[2] - head[0])
    sigmas = np.where(visibility == VISIBLE, _VISIBLE_ERROR, _HIDDEN_ERROR) * skeletons.COCO.sigmas
    # Most of the error depends on the person; the rest on the box.
    error = 0.9 * people.errors[owner] + np.sqrt(1 - 0.9**2) * rng.standard_normal((17, 2))
    points = truth + size * sigmas[:, None] * error
    anywhere[_FACE] = (head[:2] + head[2:]) / 2 + 0.2 * size / _SIZE * error[_FACE]
    points = np.where(visibility[:, None] > 0, points, anywhere)
    scores = np.where(
        visibility == VISIBLE, rng.normal(*_VISIBLE_SCORE, 17), rng.normal(*_HIDDEN_SCORE, 17)
    )
    scores = np.where(visibility > 0, np.clip(scores, 0.05, 0.99), guessed)
    # The crop of a network is a quarter larger than the box; joints outside it end at its edge.
    margin = 0.125 * (high - low)
    inside = np.clip(points, low - margin, high + margin)
    is_cut = np.abs(inside - points).max(-1) > 1
    return inside, np.where(is_cut, 0.3 * scores, scores)


def _of_other(people: _People, owner: int, rng: np.random.Generator) -> Bool[np.ndarray, " 17"]:
    return (people.visibility[owner] == OCCLUDED) & (rng.uniform(0, 1, 17) < _OF_OTHER_PROB)


def _other(people: _People, owner: int) -> Float[np.ndarray, "17 2"]:
    """The joints of the person who overlaps most; where there is none, those of the owner."""
    iou = box_iou(people.bboxes[owner : owner + 1], people.bboxes)[0]
    iou[owner] = 0
    other = int(iou.argmax()) if iou.max() > 0.1 else owner
    known = people.visibility[other][:, None] > 0
    return np.where(known, people.keypoints[other], people.keypoints[owner])
