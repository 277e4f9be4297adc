"""Prediction over many machines by Apache Beam: implements `rmpe predict --beam-options`.

The images are listed in `images.jsonl`, in groups. Beam gives the groups to its workers, each of
which loads the model once. Poses go to `poses-00000-of-0000N.jsonl`, in the format of the journal
but in any order; images without a result go to `skipped-*.jsonl`, with the reason. Beam gives these
files their names only when all images are done, so each image is in them once, also if a worker was
lost.
"""

import contextlib
import functools
import json
import logging
import os
import pathlib
import shutil
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any, NamedTuple

from rmpe_jax.beam import import_beam, parse_options, run_pipeline
from rmpe_jax.data.images import ImageError, decode_image, read_encoded
from rmpe_jax.detectors.factory import is_lookup, open_detector
from rmpe_jax.entry import use_compilation_cache
from rmpe_jax.errors import UserError
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.lock import FolderLock
from rmpe_jax.object_store import is_address
from rmpe_jax.predict import addresses, output_names
from rmpe_jax.predict.formats import ImagePoses
from rmpe_jax.predict.inputs import Frame
from rmpe_jax.predict.journal import journal_line
from rmpe_jax.predict.media import silence_opencv
from rmpe_jax.predict.run import Summary, closing_line, estimate_frames

_GROUP_SIZE = 16  # images that a worker takes together
_COUNTERS = ("images", "people", "unreadable", "failed")  # of `Summary`
_NAMESPACE = "rmpe_jax"
_SHARDS = (output_names.POSES_SHARDS, output_names.SKIPPED_SHARDS)
_LOADING = threading.Lock()


class EstimatorSettings(NamedTuple):
    """What a worker makes its estimator of; see `PoseEstimator.from_checkpoint`.

    Files that are named here must be on every worker, under the same name.

    Attributes:
      model: as in `PoseEstimator.from_checkpoint`.
      detector: as in `open_detector`.
      nms: parameters of pose NMS; None for the model's own.
      flip_test: average with the mirrored crop.
      batch_size: images per batch; None for the default.
    """

    model: str = "builtin"
    detector: str = "builtin"
    nms: str | None = None
    flip_test: bool = False
    batch_size: int | None = None


def predict_with_beam(
    inputs: Sequence[str], out: str, settings: EstimatorSettings, beam_options: str
) -> str:
    """Find the poses in images on the workers of Beam, and write them to a folder.

    Images that are unreadable, or on which the detector or the network raises an error, are counted
    and named in the files `skipped-*.jsonl`.

    Args:
      inputs: paths or addresses, as of `addresses.find_images`.
      out: folder or address for the results, which all workers must see.
      settings: of the estimator.
      beam_options: such as `--runner=DirectRunner`.

    Returns:
      A line that counts the images, see `closing_line`.

    Raises:
      UserError: the folder's name is a pattern to Beam, Beam is not installed, inputs or options
        cannot be used, the folder has results, the model or the detector cannot be used, the
        detector looks boxes up by name and finds the same boxes for two images, the pipeline fails,
        or no image has a result.
    """
    out = out if is_address(out) else os.path.abspath(out)
    if set(out) & set("*?["):
        raise UserError(f"{out}: Beam takes *, ? and [ for patterns; choose another output folder")
    options = parse_options(beam_options)
    images, passed_over = addresses.find_images(inputs, out)
    if is_lookup(settings.detector):
        check = getattr(open_detector(settings.detector), "check_names", None)
        if check:
            check(name for name, _ in images)
    recorded = settings._asdict() | {"inputs": list(inputs), "beam_options": beam_options}
    groups = (images[i : i + _GROUP_SIZE] for i in range(0, len(images), _GROUP_SIZE))
    with contextlib.nullcontext() if is_address(out) else FolderLock(out) as lock:
        _require_no_results(out)
        addresses.write_lines(addresses.join(out, output_names.SETTINGS), [json.dumps(recorded)])
        addresses.write_lines(addresses.join(out, output_names.IMAGES), map(json.dumps, groups))
        summary = _run(out, settings, options)
        if lock:
            lock.require_held()
    if not summary.images:
        where = addresses.join(out, f"{output_names.SKIPPED_SHARDS}-*.jsonl")
        raise UserError(f"none of the {len(images):,} images has a result: {where} says why")
    return closing_line(summary, passed_over)


class _Predict:
    """What a worker does with a group of images; yields lines of both outputs."""

    def __init__(self, settings: EstimatorSettings, out: str) -> None:
        self._settings, self._out = settings, out

    def __call__(self, line: str) -> Iterator[Any]:
        metrics = import_beam("apache_beam.metrics").Metrics
        tagged = import_beam("apache_beam.pvalue").TaggedOutput
        count = {name: metrics.counter(_NAMESPACE, name).inc for name in _COUNTERS}
        with _LOADING:
            estimator = _estimator(self._settings)
        frames = _read(json.loads(line), upright=not is_lookup(self._settings.detector))
        with contextlib.closing(estimate_frames(frames, estimator)) as results:
            for frame, poses in results:
                if frame.image is None or poses is None:
                    logging.getLogger(__name__).warning("skipped: %s", frame.error)
                    count["unreadable" if frame.image is None else "failed"](1)
                    skipped = json.dumps({"name": frame.name, "error": frame.error})
                    yield tagged(output_names.SKIPPED_SHARDS, skipped)
                    continue
                count["images"](1)
                count["people"](len(poses.scores))
                result = ImagePoses(frame.name, frame.image.shape[:2], poses)
                yield journal_line(result, estimator.skeleton, self._out)


@functools.lru_cache(maxsize=1)
def _estimator(settings: EstimatorSettings) -> PoseEstimator:
    """The estimator of this process, which its threads share."""
    silence_opencv()
    use_compilation_cache()
    return PoseEstimator.from_checkpoint(
        settings.model,
        detector=settings.detector,
        nms=settings.nms,
        flip_test=settings.flip_test,
        batch_size=settings.batch_size,
    )


def _read(images: Sequence[Sequence[str]], upright: bool) -> Generator[Frame, None, None]:
    for name, path in images:
        try:
            is_file = not is_address(path)
            encoded = read_encoded(path) if is_file else addresses.read_address(path)
            yield Frame(name, decode_image(encoded, path, upright=upright))
        except ImageError as error:
            yield Frame(name, None, error=str(error))


def _run(out: str, settings: EstimatorSettings, options: Any) -> Summary:
    beam = import_beam()

    def build(pipeline: Any) -> None:
        found = (
            pipeline
            | "list" >> beam.io.ReadFromText(addresses.join(out, output_names.IMAGES))
            | "share out" >> beam.Reshuffle()
            | "predict"
            >> beam.FlatMap(_Predict(settings, out)).with_outputs(
                output_names.SKIPPED_SHARDS, main=output_names.POSES_SHARDS
            )
        )
        for name in _SHARDS:
            path = addresses.join(out, name)
            _ = found[name] | f"write {name}" >> beam.io.WriteToText(path, ".jsonl")

    result = run_pipeline(build, options, lambda: _remove_results(out))
    counters = result.metrics().query()["counters"]
    counts = {metric.key.metric.name: metric.result for metric in counters}
    return Summary(**{name: counts.get(name, 0) for name in _COUNTERS})


def _require_no_results(out: str) -> None:
    for name in (output_names.JOURNAL, f"{output_names.POSES_SHARDS}-*"):
        if addresses.match(addresses.join(out, name)):
            raise UserError(f"{out} has results already: name another folder")


def _remove_results(out: str) -> None:
    """Remove what a pipeline that failed has left, perhaps some of the files with results."""
    for name in _SHARDS:
        addresses.delete(addresses.join(out, f"{name}-*-of-*.jsonl"))
    if not is_address(out):
        for folder in pathlib.Path(out).glob("beam-temp-*"):
            shutil.rmtree(folder, ignore_errors=True)
