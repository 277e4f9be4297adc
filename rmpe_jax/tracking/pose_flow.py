"""PoseFlow (Xiu et al., BMVC 2018): identities from flows of poses, over windows of frames.

Of the paper this keeps that flows maximize confidence over a window, that a non-maximum suppression
of flows removes the doubles, and that flows which do not overlap in time are linked again. It
differs where the paper matches image features (DeepMatching, or ORB in the published code): poses
that can follow each other are found by OKS, or by the IoU of boxes where a pose is uncertain.
Features tell people apart, and OKS only measures how close they are. So a pose counts in a flow
with its score times its similarity to the pose before; in the paper, with its score alone.

NumPy and SciPy, on the host.
"""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.errors import UserError
from rmpe_jax.tracking.detections import Detections, clean
from rmpe_jax.tracking.params import FlowParams
from rmpe_jax.tracking.similarity import similarity

# A flow: for each frame of a window the person, -1 where there is none.
Flow = Int[np.ndarray, " w"]


class _Pairs(NamedTuple):
    """The similarities of people in frames of a video.

    Attributes:
      later: at [g, f], of the people of frame f with those of frame f + g + 1.
      same: of the people of a frame with each other.
    """

    later: Float[np.ndarray, "g f n n"]
    same: Float[np.ndarray, "f n n"]


def track_by_pose_flow(
    detections: Detections, sigmas: Float[Any, " k"], params: FlowParams
) -> Int[np.ndarray, "f n"]:
    """Identities of the people of a whole video.

    Args:
      detections: the people of each frame, (f, n, ...) arrays.
      sigmas: per joint, as in `Skeleton.sigmas`.
      params: thresholds and lengths.

    Returns:
      The id of each person, 1 and up. It is -1 where there is no person, one with a low score, or a
      double of another one. No id is used twice.

    Raises:
      UserError: the window is shorter than two frames.
    """
    if params.window < 2:
        raise UserError(f"PoseFlow's window is {params.window}: use 2 frames or more")
    people = clean(Detections(*(np.asarray(values) for values in detections)))
    num_frames, num_people = people.valid.shape
    scores = np.where(people.valid & (people.scores >= params.min_score), people.scores, 0)
    pairs = _pair_similarities(people, sigmas, params)
    ids = np.full((num_frames, num_people), -1, np.int32)
    next_id = 1
    step = max(params.window // 2, 1)
    for start in range(0, max(num_frames - params.window + step, 1), step):
        frames = slice(start, start + params.window)
        flows = _build_flows(scores[frames], pairs.later[:, frames], params)
        flows = _flow_nms(flows, scores[frames], pairs.same[frames], params)
        next_id = _stitch(ids[frames], flows, next_id)
    return ids


def _pair_similarities(people: Detections, sigmas: Float[Any, " k"], params: FlowParams) -> _Pairs:
    """All similarities that the flows need; 0 beyond the end of the video."""
    num_frames, num_people = people.valid.shape
    sure = people.keypoint_scores >= params.min_joint_score
    rows = [np.flatnonzero(valid) for valid in people.valid]

    def between(a: int, b: int) -> Float[np.ndarray, "n n"]:
        values = np.zeros((num_people, num_people), np.float32)
        values[np.ix_(rows[a], rows[b])] = similarity(
            people.keypoints[a, rows[a]],
            np.zeros_like(people.keypoint_scores[a, rows[a]]),
            sure[a, rows[a]],
            people.bboxes[a, rows[a]],
            people.keypoints[b, rows[b]],
            sure[b, rows[b]],
            people.bboxes[b, rows[b]],
            sigmas,
            params.min_joints,
        )
        return values

    later = np.zeros((params.max_gap + 1, num_frames, num_people, num_people), np.float32)
    for gap in range(params.max_gap + 1):
        for frame in range(num_frames - gap - 1):
            later[gap, frame] = between(frame, frame + gap + 1)
    same = [between(frame, frame) for frame in range(num_frames)]
    return _Pairs(later, np.array(same, np.float32).reshape(num_frames, num_people, num_people))


def _build_flows(
    scores: Float[np.ndarray, "w n"], later: Float[np.ndarray, "g w n n"], params: FlowParams
) -> list[Flow]:
    """Flows of a window, best first: each is the best one of the people whom the former left."""
    gains = _gains(scores, later, params.min_similarity)
    left = scores > 0
    flows = []
    while left.any():
        flow = _best_flow(np.where(left, scores, -np.inf), gains)
        frames = np.flatnonzero(flow >= 0)
        left[frames, flow[frames]] = False
        flows.append(flow)
    return flows


def _gains(
    scores: Float[np.ndarray, "w n"], later: Float[np.ndarray, "g w n n"], min_similarity: float
) -> list[Float[np.ndarray, "_ n"]]:
    """For each frame, what its people add to a flow that comes from those of the frames before.

    The frames before are those within the gap, nearest first; -inf where no flow can pass.
    """
    gains = []
    for frame in range(len(scores)):
        lasts = range(frame - 1, max(frame - 1 - len(later), -1), -1)
        linked = [later[gap, last] for gap, last in enumerate(lasts)]
        linked = np.concatenate(linked) if linked else np.zeros((0, scores.shape[1]))
        gains.append(np.where(linked >= min_similarity, linked * scores[frame], -np.inf))
    return gains


def _best_flow(scores: Float[np.ndarray, "w n"], gains: list[Float[np.ndarray, "_ n"]]) -> Flow:
    """The flow with the highest sum of confidences, by dynamic programming over the frames.

    Args:
      scores: -inf where a flow cannot pass.
      gains: see `_gains`.
    """
    num_frames, num_people = scores.shape
    total = scores.astype(float)  # of the best flow that ends with each person
    before = np.full((num_frames, num_people), -1)  # the one before, as a row of the gains
    people = np.arange(num_people)
    for frame in range(1, num_frames):
        num_lasts = len(gains[frame]) // num_people
        sums = total[frame - num_lasts : frame][::-1].reshape(-1, 1) + gains[frame]
        last = sums.argmax(0)
        best = sums[last, people]
        better = (best > total[frame]) & (scores[frame] > -np.inf)
        total[frame, better] = best[better]
        before[frame, better] = last[better]
    frame, person = np.unravel_index(total.argmax(), total.shape)
    flow = np.full(num_frames, -1)
    flow[frame] = person
    while (last := before[frame, person]) >= 0:
        gap, person = divmod(last, num_people)
        frame = frame - 1 - gap
        flow[frame] = person
    return flow


def _flow_nms(
    flows: list[Flow],
    scores: Float[np.ndarray, "w n"],
    same: Float[np.ndarray, "w n n"],
    params: FlowParams,
) -> list[Flow]:
    """The flows without doubles, the most confident first.

    A double gives its people to the frames in which the flow that stays has none.
    """

    def confidence(flow: Flow) -> float:
        frames = np.flatnonzero(flow >= 0)
        return float(scores[frames, flow[frames]].sum())

    flows = sorted(flows, key=confidence, reverse=True)
    kept = []
    while flows:
        reference, *others = flows
        flows = []
        for flow in others:
            common = np.flatnonzero((reference >= 0) & (flow >= 0))
            similarities = same[common, reference[common], flow[common]]
            if len(common) and np.median(similarities) >= params.nms_similarity:
                reference = np.where(reference >= 0, reference, flow)
            else:
                flows.append(flow)
        kept.append(reference)
    return kept


def _stitch(ids: Int[np.ndarray, "w n"], flows: list[Flow], next_id: int) -> int:
    """Give the people of a window's flows their ids, in place; the next id that is free.

    A flow continues the identity with which it shares the most people in the frames that earlier
    windows had too. Other flows get new ids.
    """
    import scipy.optimize  # here, because it takes half a second

    known = np.unique(ids[ids >= 0])
    people = [(np.flatnonzero(flow >= 0), flow[flow >= 0]) for flow in flows]
    shared = np.array([[(ids[at] == one).sum() for one in known] for at in people], float)
    shared = shared.reshape(len(flows), len(known))
    rows, columns = scipy.optimize.linear_sum_assignment(shared, maximize=True)
    own = dict(zip(rows.tolist(), columns.tolist(), strict=True))
    for i, (frames, persons) in enumerate(people):
        is_continued = i in own and shared[i, own[i]] > 0
        one = known[own[i]] if is_continued else next_id
        free = (ids[frames, persons] < 0) & ~(ids[frames] == one).any(-1)
        ids[frames[free], persons[free]] = one
        if free.any() and not is_continued:
            next_id += 1
    return next_id
