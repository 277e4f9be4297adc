"""Scores tracked poses against annotated videos: `rmpe eval-tracks`."""

import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence

from rmpe_jax.data.posetrack import read_posetrack
from rmpe_jax.data.tracks import TrackedVideo
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.pose_mota import pose_mota
from rmpe_jax.evaluation.tracks import (
    MIN_JOINT_SCORE,
    Similarity,
    TrackCounts,
    add_counts,
    count_tracks,
    track_metrics,
)
from rmpe_jax.experiments.found_tracks import found_people
from rmpe_jax.experiments.tables import markdown_table
from rmpe_jax.files import write_json

ALL = "all"  # the row of all videos together

# The scores of a row of the table: of people, and of joints.
Scores = dict[str, float]


def evaluate_tracks(
    truth: str | os.PathLike,
    poses: str | os.PathLike,
    similarity: Similarity = "oks",
    min_joint_score: float = MIN_JOINT_SCORE,
    out: str | os.PathLike | None = None,
) -> dict[str, tuple[Scores, Scores]]:
    """Score the tracks of poses.

    Poses belong to the annotated frame whose name ends with the name of theirs, or the other way
    round; folders count, extensions do not. An annotated frame without poses is one in which
    nobody is found.

    Args:
      truth: PoseTrack18's JSON of videos, or a folder of them.
      poses: `poses.jsonl` of `rmpe predict --track`, or files in PoseTrack18's format.
      similarity: of people; see `evaluation.tracks.count_tracks`.
      min_joint_score: found joints with lower scores do not count for PoseTrack's MOTA.
      out: a JSON file to write the scores to.

    Returns:
      For each video, and for `ALL`, the scores of people and the MOTA of joints, in percent.

    Raises:
      UserError: a file cannot be read, an annotated person has no track, the poses have no tracks,
        or they are not of these videos.
    """
    videos = read_posetrack(truth)
    require_tracks(videos, truth)
    counts: dict[str, TrackCounts] = {}
    for video, found in zip(videos, found_people(videos, poses), strict=True):
        counts[_unused(video.name, counts)] = count_tracks(
            video.frames, found, video.skeleton, similarity, min_joint_score
        )
    log = logging.getLogger(__name__)
    if any(count.joints is None for count in counts.values()):
        line = "%s: people without bbox_head: PoseTrack's MOTA needs the size of every head"
        log.warning(line, truth)
    counts[ALL] = add_counts(list(counts.values()))
    rows = {name: (track_metrics(count), pose_mota(count.joints)) for name, count in counts.items()}
    if out is not None:
        content = {name: {**people, "pose": joints} for name, (people, joints) in rows.items()}
        settings = {"similarity": similarity, "min_joint_score": min_joint_score}
        write_json(out, {**settings, "videos": _without_nan(content)})
    return rows


def tracks_table(rows: Mapping[str, tuple[Scores, Scores]]) -> str:
    """Two Markdown tables: the scores of people, and PoseTrack's MOTA of joints."""
    titles = ("people", "MOTA of joints")
    tables = []
    for title, part in zip(titles, zip(*rows.values(), strict=True), strict=True):
        cells = [[_cell(*item) for item in scores.items()] for scores in part]
        tables.append(markdown_table(title, list(part[0]), dict(zip(rows, cells, strict=True))))
    return "\n\n".join(tables)


def _cell(name: str, value: float) -> str:
    if math.isnan(value):
        return "-"
    return f"{value:.0f}" if name == "switches" else f"{value:.1f}"


def _without_nan(content: dict) -> dict:
    return {
        key: _without_nan(value)
        if isinstance(value, dict)
        else (None if math.isnan(value) else value)
        for key, value in content.items()
    }


def _unused(name: str, taken: Iterable[str]) -> str:
    while name in taken or name == ALL:
        name += "'"
    return name


def require_tracks(videos: Sequence[TrackedVideo], path: str | os.PathLike) -> None:
    """Check that every annotated person has an identity.

    Raises:
      UserError: a person has none.
    """
    for video in videos:
        for frame in video.frames:
            if frame.is_labeled and (frame.people.ids < 0).any():
                raise UserError(
                    f"{path}: an annotated person in {frame.name} has no track_id: add it, or set "
                    "is_labeled of the image to false"
                )
