"""Compares trackers on synthetic clips with an imperfect detector.

  python -m rmpe_jax.experiments.compare_trackers --clips 20 --frames 100 --fps 25
  python -m rmpe_jax.experiments.compare_trackers --learn 16

All get the same people: the simulated poses of `data.synthetic`, after pose NMS. Prints a JSON line
for each tracker and a table. Intervals are the middle 95 % over resamples of the clips. With
`--learn`, the parameters of our tracker are first learned on other clips; the table then has a row
for them, and one for their gain, whose intervals are those of the difference on the same resamples.
"""

import json
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from rmpe_jax.arguments import Parser, positive_int
from rmpe_jax.data.synthetic.clip_detector import detect_poses
from rmpe_jax.data.synthetic.clip_files import clip_video
from rmpe_jax.data.synthetic.motion import FPS, Clip, make_clip
from rmpe_jax.data.tracks import TrackedPeople
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.evaluation.tracks import (
    AREA_OF_BOX,
    TrackCounts,
    add_counts,
    count_tracks,
    track_metrics,
)
from rmpe_jax.experiments.box_trackers import track_by_byte_track, track_by_greedy_iou
from rmpe_jax.experiments.fit_tracker import FoundVideos, learn
from rmpe_jax.experiments.searches import search_line
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.ops.geometry import box_area
from rmpe_jax.ops.oks import oks
from rmpe_jax.predict.tracks import MAX_TRACKS
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import COCO
from rmpe_jax.tracking import (
    Detections,
    FlowParams,
    TrackParams,
    track_by_pose_flow,
    track_video,
)
from rmpe_jax.tracking.params import params_to_dict

FIRST_SEED = 2_000_000  # of the clips
FIRST_SEED_TO_LEARN = 5_000_000  # of other clips
OURS, LEARNED, GAIN = "our tracker", "our tracker, learned", "learned minus default"
FOR_CLIPS = "our tracker, sure from .4"
# The default scores are for the built-in networks. The simulated poses have higher ones; these were
# chosen on the clips to learn from.
CLIP_PARAMS = TrackParams(sure_score=0.4, birth_score=0.5)
_RESAMPLES = 2000


class FoundPoses(NamedTuple):
    """The people found in the f frames of a clip, after pose NMS, padded to m.

    Attributes:
      keypoints: image pixels.
      keypoint_scores: 0 to 1.
      bboxes: xyxy image pixels.
      scores: of the people, after NMS.
      bbox_scores: the detector's.
      valid: False for padding.
    """

    keypoints: Float[np.ndarray, "f m 17 2"]
    keypoint_scores: Float[np.ndarray, "f m 17"]
    bboxes: Float[np.ndarray, "f m 4"]
    scores: Float[np.ndarray, "f m"]
    bbox_scores: Float[np.ndarray, "f m"]
    valid: Bool[np.ndarray, "f m"]


Tracker = Callable[[FoundPoses], Int[np.ndarray, "f m"]]


def find_poses(clip: Clip, seed: int) -> FoundPoses:
    """Simulated poses of a clip after pose NMS with the preset `rmpe`."""
    import jax.numpy as jnp

    from rmpe_jax.pose_nms import PoseCandidates, load_params, pose_nms_batch

    poses = detect_poses(clip, seed)
    candidates = PoseCandidates(*(jnp.asarray(values) for values in poses))
    kept = pose_nms_batch(candidates, load_params("rmpe"), COCO)
    return FoundPoses(
        np.asarray(kept.keypoints),
        np.asarray(kept.keypoint_scores),
        poses.bboxes,
        np.asarray(kept.scores),
        poses.scores,
        np.asarray(kept.keep),
    )


def trackers(learned: TrackParams | None = None) -> dict[str, Tracker]:
    """The trackers by their titles in the table, ours with `learned` parameters too if given."""

    def detections(found: FoundPoses) -> Detections:
        return Detections(
            found.keypoints, found.keypoint_scores, found.bboxes, found.scores, found.valid
        )

    def ours(found: FoundPoses, params: TrackParams) -> Int[np.ndarray, "f m"]:
        return np.asarray(track_video(detections(found), COCO.sigmas, params, MAX_TRACKS))

    with_learned = {} if learned is None else {LEARNED: lambda found: ours(found, learned)}
    return {
        OURS: lambda found: ours(found, TrackParams()),
        FOR_CLIPS: lambda found: ours(found, CLIP_PARAMS),
        **with_learned,
        "PoseFlow": lambda f: track_by_pose_flow(detections(f), COCO.sigmas, FlowParams()),
        "ByteTrack, boxes alone": lambda f: track_by_byte_track(f.bboxes, f.bbox_scores, f.valid),
        "greedy IoU": lambda f: track_by_greedy_iou(f.bboxes, f.bbox_scores, f.valid),
    }


def annotated_ids(clip: Clip, found: FoundPoses) -> Int[np.ndarray, "f m"]:
    """The identity of the most similar annotated person with an OKS of .5 or more, in each frame.

    Each person gets one pose, the most similar one. No tracker that sees the same poses can be
    much better.
    """
    ids = np.full(found.valid.shape, -1)
    for frame, present in enumerate(clip.ids > 0):
        places = np.flatnonzero(found.valid[frame])
        bboxes = clip.bboxes[frame, present].astype(float)
        similarity = oks(
            found.keypoints[frame, places].astype(float),
            clip.keypoints[frame, present].astype(float),
            clip.visibility[frame, present],
            AREA_OF_BOX * box_area(bboxes),
            COCO.sigmas,
        )
        while similarity.size and similarity.max() >= 0.5:
            pose, person = np.unravel_index(similarity.argmax(), similarity.shape)
            ids[frame, places[pose]] = clip.ids[frame, present][person]
            similarity[pose], similarity[:, person] = 0, 0
    return ids


def score_ids(clip: Clip, found: FoundPoses, ids: Int[np.ndarray, "f m"]) -> TrackCounts:
    """The counts of a clip for identities of the found poses."""
    people = _people(found, ids, (ids >= 0) & found.valid)
    return count_tracks(clip_video(clip, "clip").frames, people, COCO)


def _people(
    found: FoundPoses, ids: Int[np.ndarray, "f m"], chosen: Bool[np.ndarray, "f m"]
) -> list[TrackedPeople]:
    """The chosen people of each frame with these identities."""
    return [
        TrackedPeople(
            found.keypoints[frame, rows].astype(np.float64),
            found.keypoint_scores[frame, rows].astype(np.float64),
            found.bboxes[frame, rows].astype(np.float64),
            np.full((int(rows.sum()), 4), np.nan),
            ids[frame, rows].astype(int),
        )
        for frame, rows in enumerate(chosen)
    ]


def learn_params(
    num_clips: int, num_frames: int, fps: float, num_people: int, steps: int
) -> TrackParams:
    """The parameters of our tracker with the highest IDF1 on clips of other seeds than `compare`.

    Prints a line for each search.
    """
    videos, people = [], []
    for seed in range(FIRST_SEED_TO_LEARN, FIRST_SEED_TO_LEARN + num_clips):
        clip = make_clip(seed, num_frames, num_people=num_people, fps=fps)
        found = find_poses(clip, seed)
        videos.append(clip_video(clip, str(seed)))
        people.append(_people(found, np.full(found.valid.shape, -1), found.valid))
    data = FoundVideos(videos, COCO, people)
    fit = learn(
        data,
        TrackParams(),
        steps=steps,
        report=lambda search: print(search_line(search, "IDF1"), flush=True),
    )
    print(json.dumps({"learned on clips": num_clips, "IDF1 before": fit.start_score,
                      "IDF1": fit.score, "params": params_to_dict(fit.params)}))  # fmt: skip
    return fit.params


def summary(counts: Sequence[TrackCounts], crossings: Sequence[int]) -> dict[str, float | list]:
    """The scores over all clips, each with the ends of its interval.

    Percent, but `switches`, their total, and `switches per crossing`.
    """
    return _intervals(_resampled(counts, crossings))


def gain(
    counts: Sequence[TrackCounts], others: Sequence[TrackCounts], crossings: Sequence[int]
) -> dict[str, float | list]:
    """The scores of `counts` minus those of `others` on the same clips, as in `summary`."""
    ours, theirs = _resampled(counts, crossings), _resampled(others, crossings)
    return _intervals([{k: a[k] - b[k] for k in a} for a, b in zip(ours, theirs, strict=True)])


def _resampled(counts: Sequence[TrackCounts], crossings: Sequence[int]) -> list[dict[str, float]]:
    """The scores of all clips, then those of resamples, which are the same in every call."""
    rng = np.random.default_rng(0)
    counts = [of_clip._replace(joints=None) for of_clip in counts]
    values = [_scores(counts, crossings)]
    for _ in range(_RESAMPLES):
        chosen = rng.integers(len(counts), size=len(counts))
        values.append(_scores([counts[i] for i in chosen], [crossings[i] for i in chosen]))
    return values


def _intervals(values: Sequence[dict[str, float]]) -> dict[str, float | list]:
    """The first values, each with the ends of the interval of the others."""
    low, high = np.nanpercentile([list(v.values()) for v in values[1:]], (2.5, 97.5), axis=0)
    return {
        name: [round(value, 3), round(float(a), 3), round(float(b), 3)]
        for (name, value), a, b in zip(values[0].items(), low, high, strict=True)
    }


def compare(
    num_clips: int,
    num_frames: int,
    fps: float,
    num_people: int,
    learned: TrackParams | None = None,
) -> dict[str, dict]:
    """The summary of each tracker, by its title; with `learned` parameters also the gain."""
    methods = trackers(learned)
    counts: dict[str, list[TrackCounts]] = {name: [] for name in ("annotated ids", *methods)}
    crossings = []
    for seed in progress(range(FIRST_SEED, FIRST_SEED + num_clips), num_clips, "clips"):
        clip = make_clip(seed, num_frames, num_people=num_people, fps=fps)
        found = find_poses(clip, seed)
        crossings.append(clip.crossings)
        counts["annotated ids"].append(score_ids(clip, found, annotated_ids(clip, found)))
        for name, method in methods.items():
            counts[name].append(score_ids(clip, found, method(found)))
    print(json.dumps({"clips": num_clips, "frames": num_frames, "fps": fps, "people": num_people,
                      "crossings": sum(crossings)}))  # fmt: skip
    rows = {name: summary(of_method, crossings) for name, of_method in counts.items()}
    if learned is not None:
        rows[GAIN] = gain(counts[LEARNED], counts[OURS], crossings)
    return rows


def comparison_table(rows: dict[str, dict]) -> str:
    """A Markdown table of the summaries, with the intervals in brackets."""
    names = list(next(iter(rows.values())))
    digits = {"switches": 0, "switches per crossing": 2}
    cells = {
        title: [
            "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*scores[name], d=digits.get(name, 1))
            for name in names
        ]
        for title, scores in rows.items()
    }
    return markdown_table("", names, cells)


def _scores(counts: Sequence[TrackCounts], crossings: Sequence[int]) -> dict[str, float]:
    metrics = track_metrics(add_counts(counts))
    chosen = {name: metrics[name] for name in ("IDF1", "MOTA", "HOTA", "AssA", "switches")}
    return {**chosen, "switches per crossing": metrics["switches"] / max(sum(crossings), 1)}


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=positive_int, default=20, help="number (default: 20)")
    parser.add_argument("--frames", type=positive_int, default=100, help="of each (default: 100)")
    parser.add_argument("--fps", type=float, default=FPS, help=f"frame rate (default: {FPS:g})")
    parser.add_argument("--people", type=positive_int, default=6, help="of each (default: 6)")
    parser.add_argument("--learn", type=positive_int, metavar="CLIPS", help="learn on other clips")
    parser.add_argument("--steps", type=positive_int, default=7, help="of --learn (default: 7)")
    args = parser.parse_args()
    use_compilation_cache()

    def print_comparison() -> None:
        learned = None
        if args.learn:
            learned = learn_params(args.learn, args.frames, args.fps, args.people, args.steps)
        rows = compare(args.clips, args.frames, args.fps, args.people, learned)
        for name, scores in rows.items():
            print(json.dumps({"tracker": name, **scores}))
        print(f"\n{comparison_table(rows)}")

    return run(print_comparison)


if __name__ == "__main__":
    sys.exit(main())
