"""A run of `rmpe predict`: read, detect, estimate and write concurrently, from files to files.

Each result is written to the journal, one line per image, as soon as it is found. The other formats
are made from the journal at the end, also when the run is interrupted. A run that tracks adds track
ids to each result; smoothed poses are in a second journal, which the other formats are made from.
"""

import contextlib
import itertools
import json
import logging
import pathlib
from collections.abc import Generator, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from rmpe_jax.detectors import Boxes
from rmpe_jax.detectors.onnx_engines import first_line
from rmpe_jax.errors import UserError
from rmpe_jax.files import write_json
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.inference.poses import Poses
from rmpe_jax.lock import FolderLock
from rmpe_jax.predict.drawings import (
    Drawings,
    RunReport,
    VisualOutput,
    add_earlier_results,
    draw_again,
)
from rmpe_jax.predict.formats import ImagePoses, write_alphapose, write_coco, write_openpose
from rmpe_jax.predict.inputs import (
    Frame,
    Input,
    count_frames,
    describe_passed_over,
    frame_names,
    read_frames,
)
from rmpe_jax.predict.journal import Journal, JournalIndex, read_journal, write_journal
from rmpe_jax.predict.output_names import (
    DRAWINGS,
    JOURNAL,
    OF_FORMAT,
    REPORT,
    SETTINGS,
    SMOOTHED,
)
from rmpe_jax.predict.pipeline import prefetch
from rmpe_jax.predict.sequences import Sequences
from rmpe_jax.predict.smoothed import OneEuroSmoother, Smoothing, smoothed
from rmpe_jax.predict.tracks import RunTracker, describe_lengths
from rmpe_jax.predict.videos import VideoInput
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.tracking import TrackParams

_QUEUE_BYTES = 2**27  # of images in each of the three queues
_MAX_FAILED = 20  # errors without any result, after which a run stops


class _WriteFn(Protocol):
    def __call__(
        self, path: pathlib.Path, results: Iterable[ImagePoses], skeleton: Skeleton, /
    ) -> None: ...


_WRITE: dict[str, _WriteFn] = {
    "coco": write_coco,
    "alphapose": write_alphapose,
    "openpose": write_openpose,
}
FORMATS = ("jsonl", *_WRITE)


class Summary(NamedTuple):
    """Counts of a run.

    Attributes:
      images: images and frames of videos that were processed.
      people: poses found in them.
      unreadable: images and videos that were skipped because they cannot be read.
      already_done: images that an earlier run had processed.
      failed: images that were skipped because the detector or the network raised an error.
      track_lengths: frames of each track, earlier runs' included; None if the run does not track.
    """

    images: int = 0
    people: int = 0
    unreadable: int = 0
    already_done: int = 0
    failed: int = 0
    track_lengths: tuple[int, ...] | None = None


def closing_line(summary: Summary, passed_over: Sequence[pathlib.Path] = ()) -> str:
    """What a run has read and what not, such as `7 images, 9 people, 1 unreadable`.

    Args:
      summary: of the run.
      passed_over: files in folders that are neither images nor videos.
    """
    parts = [
        f"{summary.images:,} images, {summary.people:,} people, {summary.unreadable:,} unreadable"
    ]
    if summary.track_lengths is not None:
        parts.append(describe_lengths(summary.track_lengths))
    if summary.failed:
        parts.append(f"{summary.failed:,} on which the detector or the network failed")
    if summary.already_done:
        parts.append(f"{summary.already_done:,} images already done")
    if passed_over:
        parts.append(describe_passed_over(passed_over))
    return ", ".join(parts)


def prepare_output_folder(
    out: pathlib.Path, settings: Mapping[str, object], resume: bool = False
) -> None:
    """Make the folder for results and record the settings they depend on, before the run.

    Args:
      out: the folder; created if necessary.
      settings: what the results depend on; stored in `settings.json`, and compared when resuming.
      resume: accept a folder that has results.

    Raises:
      UserError: the folder cannot be used, see `check_output_folder`.
    """
    check_output_folder(out, settings, resume)
    if not _has_results(out):
        write_json(out / SETTINGS, settings)


def check_output_folder(
    out: pathlib.Path, settings: Mapping[str, object], resume: bool = False
) -> None:
    """Check that a folder can get results; nothing is written.

    Args:
      out: the folder.
      settings: what the results depend on.
      resume: accept a folder that has results of these settings.

    Raises:
      UserError: the folder has results: any, or with `resume`, results of other settings.
    """
    if not _has_results(out):
        return
    if not resume:
        raise UserError(f"{out} has results already: continue with --resume or name another folder")
    try:
        earlier = json.loads((out / SETTINGS).read_text(encoding="utf-8"))
        # A setting that is not stored was not in use, as in results of earlier versions.
        differing = [
            key for key, value in settings.items() if (earlier.get(key) or None) != (value or None)
        ]
    except (OSError, ValueError, AttributeError):
        raise UserError(f"{out / SETTINGS} cannot be read: name another folder") from None
    if differing:
        key = differing[0]
        raise UserError(
            f"{out} has results with {key} {earlier.get(key)!r}, not {settings[key]!r}: "
            "use the same, or name another folder"
        )


def check_tracking(
    inputs: Sequence[Input], track: bool, smooth: Smoothing, shows_images: bool
) -> None:
    """Check that these options of a run fit together.

    Args:
      inputs: of the run.
      track: whether it tracks.
      smooth: how poses are smoothed.
      shows_images: whether the run draws or makes a report.

    Raises:
      UserError: the run smooths without tracking, or smooths offline what it shows of a webcam.
    """
    if smooth != "none" and not track:
        raise UserError("--smooth needs to know who is who: add --track")
    if smooth == "offline" and shows_images:
        for item in inputs:
            if isinstance(item, VideoInput) and isinstance(item.source, int):
                raise UserError(
                    f"{item.name}: --smooth offline reads a video again to draw it, but a webcam "
                    "cannot be read again: use one-euro, or neither --draw nor --report"
                )


def _has_results(out: pathlib.Path) -> bool:
    journal = out / JOURNAL
    return journal.exists() and journal.stat().st_size > 0


def predict_files(
    inputs: Sequence[Input],
    out: pathlib.Path,
    estimator: PoseEstimator,
    *,
    formats: Sequence[str] = ("jsonl",),
    draw: bool = False,
    draw_boxes: bool = False,
    report: bool = False,
    resume: bool = False,
    lock: FolderLock | None = None,
    track: bool = False,
    smooth: Smoothing = "none",
    tracker_params: TrackParams | None = None,
) -> Summary:
    """Find poses in all inputs and write them to a folder.

    `poses.jsonl` grows with every image; `coco.json`, `alphapose-results.json` and `openpose/` are
    made from it at the end. Images that are unreadable, or on which the detector or the network
    raises an error, are logged, counted and skipped; but a `UserError` ends the run, and so do
    errors on 20 images if no image has a result.

    Args:
      inputs: of `inputs.find_files`.
      out: folder for the results, prepared by `prepare_output_folder`.
      estimator: with a detector.
      formats: of `FORMATS`; "jsonl" is always written.
      draw: also draw the poses on the images and videos, in `drawn/`.
      draw_boxes: draw the detector's boxes too.
      report: also write `report.html`.
      resume: continue the results in `out`, skipping what they contain. Images of earlier results
        are still drawn and added to the report.
      lock: of `out`; must be held whenever a result is written.
      track: give people track ids, see `sequences` for what is a video.
      smooth: how the poses of each track are smoothed, in all outputs but `poses.jsonl`; the
        smoothed poses are in `smoothed.jsonl`. Smoothing offline reads the inputs a second time to
        draw them, when all of them are done.
      tracker_params: of the tracker; by default `TrackParams()`.

    Raises:
      UserError: the folder or its results cannot be used, no image has a result, the detector
        looks boxes up by name and finds the same boxes for two images, or `check_tracking` fails.
    """
    check_tracking(inputs, track, smooth, shows_images=draw or report)
    estimator.check_names(frame_names(inputs))
    sequences = Sequences(inputs) if track else None
    inputs = sequences.inputs if sequences else inputs
    identify = None
    if sequences:
        identify = _Identify(sequences, smooth, estimator.skeleton, tracker_params or TrackParams())
    is_drawn_later = smooth == "offline"

    def open_outputs(stack: contextlib.ExitStack, resume: bool) -> list[VisualOutput]:
        outputs: list[VisualOutput] = []
        if draw:
            drawings = Drawings(out / DRAWINGS, estimator.skeleton, draw_boxes)
            outputs.append(stack.enter_context(drawings))
        if report:
            page = RunReport(out / REPORT, estimator.skeleton, resume)
            outputs.append(stack.enter_context(page))
            if identify:  # also called if the run is interrupted
                stack.callback(lambda: page.add_tracks(identify.tracker.tracks()))
        return outputs

    with contextlib.ExitStack() as stack:
        journal = stack.enter_context(Journal(out / JOURNAL, estimator.skeleton, resume))
        outputs = [] if is_drawn_later else open_outputs(stack, resume)
        earlier = read_journal(out / JOURNAL, estimator.skeleton)
        earlier = map(identify.replay, earlier) if identify else earlier
        add_earlier_results(outputs, inputs, earlier)
        # Also called if the run is interrupted, with all results in the journal.
        stack.callback(_write_formats, out, formats, estimator.skeleton, sequences, smooth)
        already_done = len(journal.done)
        total = count_frames(inputs)
        remaining = None if total is None else max(total - already_done, 0)
        frames = read_frames(inputs, frozenset(journal.done))
        results = stack.enter_context(contextlib.closing(estimate_frames(frames, estimator)))
        summary = Summary(already_done=already_done)
        for frame, poses in progress(results, remaining, "images"):
            if lock:
                lock.require_held()
            summary = _write_result(summary, frame, poses, journal, outputs, identify)
            if summary.failed == _MAX_FAILED and not summary.images:
                raise UserError(
                    f"stopped: the detector or the network failed on {_MAX_FAILED} images, and no "
                    "image has a result; the lines above say why"
                )
    skipped = summary.unreadable + summary.failed
    if skipped and not summary.images and not summary.already_done:
        if not summary.failed:
            raise UserError(f"none of the {skipped:,} images can be read; check them")
        raise UserError(
            f"none of the {skipped:,} images has a result: the detector or the network failed on "
            f"{summary.failed:,}, as the lines above say"
        )
    if is_drawn_later and (draw or report):
        with contextlib.ExitStack() as stack:
            outputs = open_outputs(stack, resume=False)
            draw_again(outputs, inputs, JournalIndex(out / SMOOTHED, estimator.skeleton))
    if identify:
        identify.tracker.warn_of_missing_room()
        lengths = tuple(track.num_frames for track in identify.tracker.tracks())
        summary = summary._replace(track_lengths=lengths)
    return summary


class _Identify:
    """Track ids for the results of a run, and the smoothed poses that are shown at once."""

    def __init__(
        self, sequences: Sequences, smooth: Smoothing, skeleton: Skeleton, params: TrackParams
    ) -> None:
        self.tracker = RunTracker(sequences, skeleton, params)
        self._smoother = OneEuroSmoother(sequences) if smooth == "one-euro" else None

    def replay(self, result: ImagePoses) -> ImagePoses:
        """Follow a result of an earlier run; what is shown of it."""
        self.tracker.replay(result)
        return self.shown(result)

    def shown(self, result: ImagePoses) -> ImagePoses:
        """The next result with ids as it is drawn."""
        return self._smoother.add(result) if self._smoother else result


def _write_result(
    summary: Summary,
    frame: Frame,
    poses: Poses | None,
    journal: Journal,
    outputs: Sequence[VisualOutput],
    identify: _Identify | None,
) -> Summary:
    """Write the poses of one image, and count it."""
    if frame.image is None or poses is None:
        logging.getLogger(__name__).warning("skipped: %s", frame.error)
        if frame.image is None:
            return summary._replace(unreadable=summary.unreadable + 1)
        return summary._replace(failed=summary.failed + 1)
    result = ImagePoses(frame.name, frame.image.shape[:2], poses, time=frame.time)
    result = identify.tracker.add(result) if identify else result
    shown = identify.shown(result) if identify else result
    for output in outputs:
        output.add(frame, shown)
    journal.add(result)
    return summary._replace(images=summary.images + 1, people=summary.people + len(poses.scores))


def estimate_frames(
    frames: Generator[Frame, None, None], estimator: PoseEstimator
) -> Generator[tuple[Frame, Poses | None], None, None]:
    """The poses in each frame; reading, detecting and estimating happen at the same time.

    Args:
      frames: images, or the reasons why they could not be read.
      estimator: with a detector.

    Yields:
      The frames in their order, each with its poses. These are None if there is no image, or if the
      detector or the network raised an error on it; the frame's `error` says why.

    Raises:
      UserError: the detector or the network cannot be used at all.
    """

    def ahead(stage: Generator) -> Generator:
        return prefetch(stage, estimator.batch_size, _QUEUE_BYTES, _num_bytes)

    return ahead(_estimate(ahead(_detect(ahead(frames), estimator)), estimator))


def _num_bytes(item: Frame | tuple[Frame, Boxes | Poses | None]) -> int:
    frame = item if isinstance(item, Frame) else item[0]
    return 0 if frame.image is None else frame.image.nbytes


def _detect(
    frames: Generator[Frame, None, None], estimator: PoseEstimator
) -> Generator[tuple[Frame, Boxes | None], None, None]:
    """The boxes of each image; None if it cannot be read or the detector fails on it."""
    has_failed = False
    with contextlib.closing(frames):
        for frame in frames:
            boxes = None
            if frame.image is not None:
                try:
                    boxes = estimator.detect(frame.image, pathlib.PurePosixPath(frame.name).name)
                except UserError:
                    raise
                except Exception as error:  # of any kind: the detector may be the caller's
                    if not has_failed:
                        line = "the detector failed on %s; this error and where it was raised:"
                        logging.getLogger(__name__).warning(line, frame.name, exc_info=error)
                    has_failed = True
                    frame = _failed(frame, "detector", error)
            yield frame, boxes


def _estimate(
    detected: Generator[tuple[Frame, Boxes | None], None, None], estimator: PoseEstimator
) -> Generator[tuple[Frame, Poses | None], None, None]:
    """The poses of each image; None if there are no boxes or the network fails on it.

    If the network fails on a batch, it gets the images one by one.
    """
    has_failed = False
    with contextlib.closing(detected):
        while group := list(itertools.islice(detected, estimator.batch_size)):
            try:
                results = _estimate_together(group, estimator)
            except UserError:
                raise
            except Exception as error:
                if not has_failed:
                    line = (
                        "the network failed on a batch of %d, the first is %s; it gets the images "
                        "of such batches one by one; this error and where it was raised:"
                    )
                    log = logging.getLogger(__name__)
                    log.warning(line, len(group), group[0][0].name, exc_info=error)
                has_failed = True
                results = None
            if results is None:  # not in the handler, where the error holds the pixels of the batch
                results = [_estimate_alone(*item, estimator) for item in group]
            yield from results
            del group, results  # the images, before those of the next batch are collected


def _estimate_together(
    group: Sequence[tuple[Frame, Boxes | None]], estimator: PoseEstimator
) -> list[tuple[Frame, Poses | None]]:
    """The poses of a batch."""
    images = [frame.image for frame, boxes in group if frame.image is not None and boxes]
    found = [boxes for _, boxes in group if boxes]
    poses = iter(estimator.estimate_batch(images, found))
    return [(frame, next(poses) if boxes else None) for frame, boxes in group]


def _estimate_alone(
    frame: Frame, boxes: Boxes | None, estimator: PoseEstimator
) -> tuple[Frame, Poses | None]:
    """The poses of an image of a batch on which the network failed."""
    if frame.image is None or boxes is None:
        return frame, None
    try:
        return frame, estimator.estimate(frame.image, *boxes)
    except UserError:
        raise
    except Exception as error:
        return _failed(frame, "network", error), None


def _failed(frame: Frame, what: str, error: Exception) -> Frame:
    reason = f"{type(error).__name__}: {first_line(error)}"
    return frame._replace(error=f"{frame.name}: the {what} failed ({reason})")


def _write_formats(
    out: pathlib.Path,
    formats: Sequence[str],
    skeleton: Skeleton,
    sequences: Sequences | None,
    smooth: Smoothing,
) -> None:
    source = out / JOURNAL
    if sequences and smooth != "none":
        source = out / SMOOTHED
        results = smoothed(read_journal(out / JOURNAL, skeleton), sequences, smooth)
        write_journal(source, results, skeleton)
    for name in formats:
        if name in _WRITE:
            _WRITE[name](out / OF_FORMAT[name], read_journal(source, skeleton), skeleton)
