"""From files to files: reading, detecting, estimating and writing, all at the same time.

What is found is in the journal, a line for each picture, as soon as it is found; other forms are
made from it at the end, or when the run is stopped.
"""

import contextlib
import itertools
import json
import logging
import pathlib
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple

from rmpe_jax.detectors import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.files import write_json
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.drawings import Drawings, ReportOfRun, add_earlier
from rmpe_jax.predict.formats import (
    PicturePoses,
    write_alphapose,
    write_coco,
    write_openpose,
)
from rmpe_jax.predict.inputs import DRAWN, Frame, Picture, Video, count_frames, read_frames
from rmpe_jax.predict.journal import Journal, read_journal
from rmpe_jax.predict.pipeline import ahead
from rmpe_jax.progress import progress

JOURNAL = "poses.jsonl"
_SETTINGS = "settings.json"
# By the name of the form: where it is written, and by what.
_WRITERS: dict[str, tuple[str, Callable]] = {
    "coco": ("coco.json", write_coco),
    "alphapose": ("alphapose-results.json", write_alphapose),
    "openpose": ("openpose", write_openpose),
}
FORMATS = ("jsonl", *_WRITERS)


class Summary(NamedTuple):
    """What a run did.

    Attributes:
      pictures: that it found poses in, frames of videos included.
      people: in them.
      unreadable: pictures that were left out.
      done_before: pictures that an earlier run had done.
    """

    pictures: int = 0
    people: int = 0
    unreadable: int = 0
    done_before: int = 0


def prepare_output_folder(out: pathlib.Path, settings: Mapping[str, object], resume: bool = False) -> None:
    """Makes a folder one of these settings' results, before they are made.

    Args:
      out: the folder, made if need be.
      settings: what the results depend on; kept in `settings.json`, and compared on resuming.
      resume: there may be results.

    Raises:
      UserError: the folder cannot be used, has results, or, to be resumed, those of other settings.
    """
    journal = out / JOURNAL
    there = journal.exists() and journal.stat().st_size > 0
    if there and not resume:
        raise UserError(f"{out} has results already: go on with --resume, or name another folder")
    if not there:
        write_json(out / _SETTINGS, settings)
        return
    try:
        theirs = json.loads((out / _SETTINGS).read_text(encoding="utf-8"))
        differing = [key for key, value in settings.items() if theirs.get(key) != value]
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{out / _SETTINGS} cannot be read: name another folder") from None
    if differing:
        key = differing[0]
        raise UserError(
            f"{out} has results with {key} {theirs.get(key)!r}, not {settings[key]!r}: "
            "use the same, or name another folder"
        )


def predict_files(
    inputs: Sequence[Picture | Video],
    out: pathlib.Path,
    estimator: PoseEstimator,
    *,
    formats: Sequence[str] = ("jsonl",),
    draw: bool = False,
    draw_boxes: bool = False,
    report: bool = False,
    resume: bool = False,
) -> Summary:
    """Finds poses in all inputs and writes them to a folder.

    `poses.jsonl` grows as pictures are done; `coco.json`, `alphapose-results.json` and `openpose/`
    are made from it. A picture that cannot be read is logged and left out.

    Args:
      inputs: of `inputs.find_inputs`.
      out: folder for the files, that of `prepare_output_folder`.
      estimator: with a detector.
      formats: of `FORMATS`; "jsonl" is always written.
      draw: also the pictures with their poses on them, in `drawn/`; videos as videos.
      draw_boxes: also draw the detector's boxes.
      report: also `report.html`.
      resume: go on with the results in `out`, leaving out what they have; of that, pictures are
        still drawn and put into the report.

    Raises:
      UserError: the folder or results in it cannot be used, or no picture can be read.
    """
    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal(out / JOURNAL, estimator.skeleton, resume))
        sinks: list[Drawings | ReportOfRun] = []
        if draw:
            drawings = Drawings(out / DRAWN, estimator.skeleton, draw_boxes)
            sinks.append(stack.enter_context(drawings))
        if report:
            page = ReportOfRun(out / "report.html", estimator.skeleton, resume)
            sinks.append(stack.enter_context(page))
        add_earlier(sinks, inputs, read_journal(out / JOURNAL, estimator.skeleton))
        # Also when the run is stopped: before the error goes on, from all that is in the journal.
        stack.callback(_write_formats, out, formats, estimator)
        done_before = len(journal.done)
        total = count_frames(inputs)
        left = None if total is None else max(total - done_before, 0)
        frames = read_frames(inputs, frozenset(journal.done))
        found = stack.enter_context(contextlib.closing(_pipeline(frames, estimator)))
        summary = Summary(done_before=done_before)
        for frame, poses in progress(found, left, "pictures"):
            summary = _take(summary, frame, poses, journal, sinks)
    if summary.unreadable and not summary.pictures and not summary.done_before:
        raise UserError(f"none of the {summary.unreadable:,} pictures can be read; check them")
    return summary


def _take(
    summary: Summary,
    frame: Frame,
    poses: Poses | None,
    journal: Journal,
    sinks: Sequence["Drawings | ReportOfRun"],
) -> Summary:
    """Writes what was found in one picture."""
    if frame.image is None or poses is None:
        logging.getLogger(__name__).warning("left out: %s", frame.error)
        return summary._replace(unreadable=summary.unreadable + 1)
    picture = PicturePoses(frame.name, frame.image.shape[:2], poses)
    for sink in sinks:
        sink.add(frame, picture)
    journal.add(picture)
    return summary._replace(
        pictures=summary.pictures + 1, people=summary.people + len(poses.scores)
    )


def _pipeline(
    frames: Generator[Frame, None, None], estimator: PoseEstimator
) -> Generator[tuple[Frame, Poses | None], None, None]:
    size = estimator.batch_size
    detected = ahead(_detect(ahead(frames, size), estimator), size)
    return ahead(_estimate(detected, estimator), size)


def _detect(
    frames: Generator[Frame, None, None], estimator: PoseEstimator
) -> Generator[tuple[Frame, Boxes | None], None, None]:
    with contextlib.closing(frames):
        for frame in frames:
            boxes = None
            if frame.image is not None:
                boxes = estimator.detect(frame.image, pathlib.PurePosixPath(frame.name).name)
            yield frame, boxes


def _estimate(
    detected: Generator[tuple[Frame, Boxes | None], None, None], estimator: PoseEstimator
) -> Generator[tuple[Frame, Poses | None], None, None]:
    with contextlib.closing(detected):
        while group := list(itertools.islice(detected, estimator.batch_size)):
            images = [frame.image for frame, _ in group if frame.image is not None]
            boxes = [boxes for _, boxes in group if boxes is not None]
            poses = iter(estimator.estimate_batch(images, boxes))
            for frame, _ in group:
                yield frame, None if frame.image is None else next(poses)


def _write_formats(out: pathlib.Path, formats: Sequence[str], estimator: PoseEstimator) -> None:
    for name in formats:
        if name in _WRITERS:
            file, write = _WRITERS[name]
            write(out / file, read_journal(out / JOURNAL, estimator.skeleton), estimator.skeleton)
