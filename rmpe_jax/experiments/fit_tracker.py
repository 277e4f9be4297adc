"""Learns the parameters of the tracker from poses and annotated videos: `rmpe fit-tracker`."""

import dataclasses
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Int

from rmpe_jax.data.posetrack import read_posetrack
from rmpe_jax.data.tracks import TrackedPeople, TrackedVideo
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.identity import FrameSimilarities, IdentityCounts, count_identities
from rmpe_jax.evaluation.tracks import (
    THRESHOLD,
    add_counts,
    compare_people,
    count_tracks,
    track_metrics,
)
from rmpe_jax.experiments.eval_tracks import require_tracks
from rmpe_jax.experiments.found_tracks import found_poses, in_joints
from rmpe_jax.experiments.searches import search_to_dict, warn_of_limits
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.files import not_writable, write_json
from rmpe_jax.ops.grid_search import Search
from rmpe_jax.ops.padding import bucket_size
from rmpe_jax.predict.tracks import MAX_TRACKS, padded_people
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.tracking import Detections, TrackParams
from rmpe_jax.tracking.fit import (
    RANGES,
    TrackerFit,
    TrackObjective,
    fit_tracker,
    stack_params,
    track_with_each,
)
from rmpe_jax.tracking.params import params_to_dict

NAMES = ("IDF1", "MOTA", "HOTA", "switches")  # the columns of the tables

Scores = dict[str, float]


@dataclasses.dataclass(frozen=True)
class FoundVideos:
    """Annotated videos and the people found in them.

    Attributes:
      videos: annotated.
      skeleton: the joints of the found people.
      found: in each frame of each video, tracked or not.
    """

    videos: Sequence[TrackedVideo]
    skeleton: Skeleton
    found: Sequence[Sequence[TrackedPeople]]

    def pick(self, chosen: slice) -> "FoundVideos":
        """Some of the videos."""
        return dataclasses.replace(self, videos=self.videos[chosen], found=self.found[chosen])


def fit_from_files(
    truth: str | os.PathLike,
    poses: str | os.PathLike,
    out: str | os.PathLike,
    *,
    steps: int = 7,
    hold_out: float = 0.0,
    report: Callable[[Search], None] = lambda search: None,
) -> dict[str, dict[str, Scores]]:
    """Learns the parameters with the highest IDF1.

    Writes `params.json` (for `rmpe predict --tracker-params`) and `searches.json` (all values tried
    and their IDF1). The search starts from the parameters of `rmpe predict --track`.

    Args:
      truth: PoseTrack18's JSON of videos, or a folder of them.
      poses: `poses.jsonl` of `rmpe predict` on these videos; track ids in it are not used.
      out: folder to write; made if needed.
      steps: values of each parameter per search.
      hold_out: the fraction of the videos, the last ones, that are not learned from.
      report: called after each search.

    Returns:
      The tables "learned from N videos" and, if there are, "N videos held out": `NAMES` in percent,
      but `switches`, for the rows "default" and "learned".

    Raises:
      UserError: a file cannot be read or written, or its content is wrong; there are no people; no
        videos are left to learn from or to hold out.
    """
    if pathlib.Path(poses).suffix != ".jsonl":
        raise UserError(
            f"{poses}: give the poses.jsonl of rmpe predict: other formats lack the scores of "
            "joints, or joints, that the tracker will see"
        )
    videos = read_posetrack(truth)
    require_tracks(videos, truth)
    data = FoundVideos(videos, *found_poses(videos, poses))
    number = len(videos) - round(hold_out * len(videos))
    if number < 1 or (hold_out > 0 and number == len(videos)):
        raise UserError(
            f"{truth}: {hold_out:g} of {len(videos)} videos is {len(videos) - number}: choose "
            "--hold-out so that videos are left on both sides"
        )
    parts = {f"learned from {_videos(number)}": data.pick(slice(number))}
    if number < len(videos):
        held_out = len(videos) - number
        parts[f"{_videos(held_out)} held out"] = data.pick(slice(number, None))
    for title, part in parts.items():
        _require_people(part, title, truth, poses)
    out = pathlib.Path(out)
    try:  # before the search, which may take hours
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_writable(out, error) from None
    fit = learn(next(iter(parts.values())), TrackParams(), steps=steps, report=report)
    warn_of_limits(fit.at_limits, RANGES, "IDF1")
    write_json(out / "params.json", params_to_dict(fit.params))
    write_json(out / "searches.json", [search_to_dict(search) for search in fit.searches])
    rows = {"default": TrackParams(), "learned": fit.params}
    return {title: scores(part, rows) for title, part in parts.items()}


def learn(
    data: FoundVideos,
    start: TrackParams,
    *,
    steps: int,
    report: Callable[[Search], None] = lambda search: None,
) -> TrackerFit:
    """The parameters with the highest IDF1, see `tracking.fit.fit_tracker`."""
    people = padded_videos(data)
    return fit_tracker(
        people,
        data.skeleton.sigmas,
        idf1_objective(data, people.valid.shape),
        start,
        steps=steps,
        max_tracks=MAX_TRACKS,
        report=report,
    )


def padded_videos(data: FoundVideos) -> Detections:
    """The found people, (v, f, n, ...) arrays padded to the longest video and the most people."""
    size = bucket_size(max(len(people.ids) for frames in data.found for people in frames))
    length = max(map(len, data.found))
    nobody = TrackedPeople.none(data.skeleton.num_keypoints)
    videos = []
    for frames in data.found:
        padded = [*frames, *[nobody] * (length - len(frames))]
        videos.append(_stack([padded_people(people, size) for people in padded]))
    return _stack(videos)


def idf1_objective(data: FoundVideos, shape: tuple[int, int, int]) -> TrackObjective:
    """IDF1 of ids, from the sums of the counts of all videos.

    People are compared once. A joint that only people without a track have counts here.

    Args:
      data: with somebody in them.
      shape: of the ids, (v, f, n).
    """
    places = np.arange(shape[1] * shape[2]).reshape(shape[1:])
    compared = []
    for video, frames in zip(data.videos, data.found, strict=True):
        numbered = with_ids(video, frames, data.skeleton, places)
        compared.append(compare_people(video.frames, numbered, video.skeleton))

    def objective(ids: Int[np.ndarray, "v f n"]) -> float:
        counts = [
            count_identities([_with_tracks(frame, flat) for frame in frames], THRESHOLD)
            for frames, flat in zip(compared, ids.reshape(len(ids), -1), strict=True)
        ]
        total = np.array(counts).sum(0).tolist()
        return IdentityCounts(*total).idf1

    return objective


def scores(data: FoundVideos, params: Mapping[str, TrackParams]) -> dict[str, Scores]:
    """The scores of parameter sets: `NAMES` in percent, but `switches`."""
    people, sets = padded_videos(data), stack_params(list(params.values()))
    ids = track_with_each(people, data.skeleton.sigmas, sets, MAX_TRACKS)
    rows = {}
    for title, of_set in zip(params, np.asarray(ids), strict=True):
        counts = [
            count_tracks(
                video.frames, with_ids(video, frames, data.skeleton, of_video), video.skeleton
            )
            for video, frames, of_video in zip(data.videos, data.found, of_set, strict=True)
        ]
        metrics = track_metrics(add_counts(counts))
        rows[title] = {name: metrics[name] for name in NAMES}
    return rows


def with_ids(
    video: TrackedVideo,
    found: Sequence[TrackedPeople],
    skeleton: Skeleton,
    ids: Int[np.ndarray, "f n"],
) -> list[TrackedPeople]:
    """The people found in a video with these ids, in the joints of the video."""
    return [
        in_joints(people._replace(ids=row[: len(people.ids)]), skeleton, video.skeleton)
        for people, row in zip(found, ids[: len(found)], strict=True)
    ]


def scores_table(title: str, rows: Mapping[str, Scores]) -> str:
    """A Markdown table of `scores`."""
    cells = {
        name: [f"{value:.{0 if key == 'switches' else 1}f}" for key, value in row.items()]
        for name, row in rows.items()
    }
    return markdown_table(title, list(NAMES), cells)


def _stack(items: Sequence[Detections]) -> Detections:
    return jax.tree.map(lambda *values: np.stack(values), *items)


def _with_tracks(frame: FrameSimilarities, ids: Int[np.ndarray, " m"]) -> FrameSimilarities:
    """A frame whose people have their places as ids, with the ids at these places."""
    tracks = ids[frame.ids]
    tracked = tracks >= 0
    return FrameSimilarities(frame.gt_ids, tracks[tracked], frame.similarities[:, tracked])


def _videos(number: int) -> str:
    return "1 video" if number == 1 else f"{number} videos"


def _require_people(
    data: FoundVideos, title: str, truth: str | os.PathLike, poses: str | os.PathLike
) -> None:
    annotated = (
        len(frame.people.ids) for video in data.videos for frame in video.frames if frame.is_labeled
    )
    if not sum(annotated):
        raise UserError(f"{truth}: nobody is annotated ({title}): give videos with people")
    if not sum(len(people.ids) for frames in data.found for people in frames):
        raise UserError(f"{poses}: nobody is found ({title}): give the poses of these videos")
