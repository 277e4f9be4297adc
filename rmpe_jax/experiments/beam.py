"""Prediction over many machines by Apache Beam: implements `rmpe predict --beam-options`.

The images are listed in `images.jsonl`, in groups. Beam gives the groups to its workers, each of
which loads the model once. Poses go to `poses-00000-of-0000N.jsonl`, in the format of the journal
but in any order; images without a result go to `skipped-*.jsonl`, with the reason. Beam gives these
files their names only when all images are done, so each image is in them once, also if a worker was
lost. Other runners repeat what a lost worker had begun. The direct runner does not, but fails: then
the whole pipeline runs again.

Apache Beam (extra `beam`) is imported when it is used. Files of object stores are found and read by
Beam's file systems.
"""

import contextlib
import functools
import importlib
import itertools
import json
import logging
import os
import pathlib
import posixpath
import re
import shutil
import signal
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from rmpe_jax.data.images import ImageError, decode_image, read_encoded
from rmpe_jax.detectors.factory import is_lookup, open_detector
from rmpe_jax.entry import use_compilation_cache
from rmpe_jax.errors import UserError
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.lock import FolderLock
from rmpe_jax.predict import output_names
from rmpe_jax.predict.formats import ImagePoses
from rmpe_jax.predict.inputs import Frame, ImageInput, find_files
from rmpe_jax.predict.journal import journal_line
from rmpe_jax.predict.media import is_image_name, silence_opencv
from rmpe_jax.predict.run import Summary, estimate_frames

_GROUP_SIZE = 16  # images that a worker takes together
_COUNTERS = ("images", "people", "unreadable", "failed")  # of `Summary`
_NAMESPACE = "rmpe_jax"
_DIRECT_ATTEMPTS = 4  # of the direct runner
_PATIENCE = 15.0  # seconds that the direct runner has to notice the loss of a worker
_LOADING = threading.Lock()


class EstimatorSettings(NamedTuple):
    """What a worker makes its estimator of; see `PoseEstimator.from_checkpoint`.

    Files that are named here must be on every worker, under the same name.

    Attributes:
      model: a model file, a workdir, or "builtin".
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


class FoundImages(NamedTuple):
    """The images that arguments name.

    Attributes:
      images: names and paths or addresses; the names are unique.
      passed_over: files in folders that are not images.
    """

    images: list[tuple[str, str]]
    passed_over: list[pathlib.Path]


def import_beam(module: str = "apache_beam") -> Any:
    """Import a module of Apache Beam.

    Raises:
      UserError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != "apache_beam":
            raise
        line = "--beam-options needs Apache Beam: pip install 'rmpe_jax[beam]'"
        raise UserError(line) from None


def find_images(arguments: Sequence[str], out: str, settings: EstimatorSettings) -> FoundImages:
    """The images that arguments name, as `find_files` does; or those of an object store.

    An address has a scheme, such as `gs://BUCKET/FOLDER`. It is a folder, an image, or a list of
    addresses (.txt). In folders of object stores, images are told by their extensions. Lists that
    are files may have addresses too.

    Args:
      arguments: paths or addresses.
      out: folder or address of the results.
      settings: whose detector may look boxes up by name.

    Raises:
      UserError: there is no such image, an input is a video, arguments have both paths and
        addresses, or two images would have the same boxes.
    """
    parts = [_addresses(argument) for argument in arguments]
    if all(part is None for part in parts):
        found = find_files(arguments, output_folder=None if _is_address(out) else pathlib.Path(out))
        for item in found.inputs:
            if not isinstance(item, ImageInput):
                raise UserError(
                    f"{item.name} is a video or a webcam: --beam-options is for images; leave it "
                    "out, or run without --beam-options"
                )
        images = [(i.name, os.path.abspath(i.path)) for i in found.inputs if hasattr(i, "path")]
        found = FoundImages(images, found.passed_over)
    elif None in parts:
        line = "inputs are files and addresses: give one kind, or a list of addresses for all"
        raise UserError(line)
    else:
        found = _named([part for part in parts if part is not None])
    if is_lookup(settings.detector):
        check = getattr(open_detector(settings.detector), "check_names", None)
        if check:
            check(name for name, _ in found.images)
    return found


def predict_with_beam(
    images: Sequence[tuple[str, str]],
    out: str,
    settings: EstimatorSettings,
    options: Sequence[str],
    inputs: Sequence[str] = (),
) -> Summary:
    """Find the poses in images on the workers of Beam, and write them to a folder.

    Images that are unreadable, or on which the detector or the network raises an error, are counted
    and named in the files `skipped-*.jsonl`.

    Args:
      images: names and paths or addresses, of `find_images`.
      out: folder or address for the results, which all workers must see.
      settings: of the estimator.
      options: of Beam, such as `--runner=DirectRunner`.
      inputs: what the user named, for `settings.json`.

    Raises:
      UserError: Beam is not installed, the folder has results, the model or the detector cannot be
        used, the pipeline fails, or no image has a result.
    """
    import_beam()
    out = out if _is_address(out) else os.path.abspath(out)
    recorded = settings._asdict() | {"inputs": list(inputs), "beam_options": list(options)}
    with contextlib.nullcontext() if _is_address(out) else FolderLock(out) as lock:
        _require_no_results(out)
        _write(_join(out, output_names.SETTINGS), [json.dumps(recorded)])
        groups = (images[i : i + _GROUP_SIZE] for i in range(0, len(images), _GROUP_SIZE))
        _write(_join(out, output_names.IMAGES), map(json.dumps, groups))
        summary = _run(out, settings, options)
        if lock:
            lock.require_held()
    if images and not summary.images:
        where = _join(out, f"{output_names.SKIPPED_SHARDS}-*.jsonl")
        raise UserError(f"none of the {len(images):,} images has a result: {where} says why")
    return summary


class _Predict:
    """What a worker does with a group of images; yields lines of both outputs."""

    def __init__(self, settings: EstimatorSettings, out: str) -> None:
        self._settings, self._out = settings, out

    def __call__(self, line: str) -> Iterator[Any]:
        metrics = import_beam("apache_beam.metrics").Metrics
        tagged = import_beam("apache_beam.pvalue").TaggedOutput
        count = {name: metrics.counter(_NAMESPACE, name).inc for name in _COUNTERS}
        upright = not is_lookup(self._settings.detector)
        with _LOADING:
            estimator = _estimator(self._settings)
        frames = _read(json.loads(line), upright)
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
            encoded = _read_address(path) if _is_address(path) else read_encoded(path)
            yield Frame(name, decode_image(encoded, path, upright=upright))
        except ImageError as error:
            yield Frame(name, None, error=str(error))


def _run(out: str, settings: EstimatorSettings, options: Sequence[str]) -> Summary:
    """Run the pipeline, on the direct runner again if it loses a worker."""
    names = import_beam("apache_beam.options.pipeline_options")
    runner = names.PipelineOptions(list(options)).view_as(names.StandardOptions).runner
    attempts = _DIRECT_ATTEMPTS if runner in (None, "DirectRunner") else 1
    for remaining in reversed(range(attempts)):
        try:
            if attempts == 1:
                return _run_once(out, settings, options)
            with _lost_workers():
                return _run_once(out, settings, options, is_direct=True)
        except UserError:
            raise
        except Exception as error:  # of any kind: runners have their own
            _remove_results(out)
            reason = _error_of_worker(error)
            if reason or not remaining:
                gist = _gist(error, last=True)
                what = f"{type(error).__name__}: {gist}"
                line = reason or f"the pipeline failed ({what}): no poses were written"
                raise UserError(line) from error
            line = "the pipeline failed (%s), as it does when it loses a worker: it runs again"
            logging.getLogger(__name__).warning(line, _gist(error, last=True))
    raise AssertionError  # the last attempt returns or raises


def _run_once(
    out: str, settings: EstimatorSettings, options: Sequence[str], is_direct: bool = False
) -> Summary:
    beam = import_beam()
    names = import_beam("apache_beam.options.pipeline_options")
    parsed = names.PipelineOptions(list(options))
    workers = parsed.view_as(names.WorkerOptions)
    workers.default_sdk_harness_log_level = workers.default_sdk_harness_log_level or "WARNING"
    shards = {"file_name_suffix": ".jsonl"}
    pipeline = beam.Pipeline(runner=_direct_runner(parsed) if is_direct else None, options=parsed)
    found = (
        pipeline
        | "list" >> beam.io.ReadFromText(_join(out, output_names.IMAGES))
        | "share out" >> beam.Reshuffle()
        | "predict"
        >> beam.FlatMap(_Predict(settings, out)).with_outputs(
            output_names.SKIPPED_SHARDS, main=output_names.POSES_SHARDS
        )
    )
    for name in (output_names.POSES_SHARDS, output_names.SKIPPED_SHARDS):
        _ = found[name] | f"write {name}" >> beam.io.WriteToText(_join(out, name), **shards)
    result = pipeline.run()
    state = result.wait_until_finish()
    if state not in (None, "DONE"):
        raise RuntimeError(f"it ended as {state}")
    counters = result.metrics().query()["counters"]
    counts = {metric.key.metric.name: metric.result for metric in counters}
    return Summary(**{name: counts.get(name, 0) for name in _COUNTERS})


@contextlib.contextmanager
def _lost_workers() -> Iterator[None]:
    """A block that ends with an error if the direct runner does not notice that it lost a worker.

    It waits forever for a worker process that ends before it connects. Its thread for that process
    ends with an error then. Only the main thread can be interrupted; in others it goes on waiting.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    timer, is_stuck = threading.Timer(_PATIENCE, lambda: interrupt()), threading.Event()
    timer.daemon, earlier = True, set(threading.enumerate())

    def interrupt() -> None:
        is_stuck.set()
        os.kill(os.getpid(), signal.SIGINT)  # wakes the main thread, unlike `interrupt_main`

    def notice(found: Any) -> None:
        if found.thread in earlier:
            return  # of a pipeline that failed before
        if found.thread is not None and found.thread.name == "run_worker":
            if not (timer.is_alive() or timer.finished.is_set()):
                timer.start()
        else:
            previous(found)

    previous, threading.excepthook = threading.excepthook, notice
    try:
        yield
    except KeyboardInterrupt:
        if is_stuck.is_set():
            raise RuntimeError("a worker process ended before its work began") from None
        raise
    finally:
        timer.cancel()
        threading.excepthook = previous


def _direct_runner(options: Any) -> Any:
    """Beam's direct runner in Python, which runs on this machine.

    By the name DirectRunner, Beam first tries Prism, a program that it downloads and that takes no
    number of workers.
    """
    api = import_beam("apache_beam.portability.api").beam_provision_api_pb2
    handle = import_beam("apache_beam.runners.portability.portable_runner").JobServiceHandle
    runner = import_beam("apache_beam.runners.portability.fn_api_runner.fn_runner")
    encoded = handle.encode_pipeline_options(options.get_all_options(drop_default=True))
    info = api.ProvisionInfo(pipeline_options=encoded)  # what workers are told
    return runner.FnApiRunner(provision_info=runner.ExtendedProvisionInfo(info))


def _error_of_worker(error: Exception) -> str:
    """The line of a `UserError` that a worker raised; empty if none did."""
    lines = re.findall(r"(?:User|Image)Error: (.+?)(?: \[while running .*)?$", str(error), re.M)
    return lines[-1] if lines else ""


def _require_no_results(out: str) -> None:
    for name in (output_names.JOURNAL, f"{output_names.POSES_SHARDS}-*"):
        if _match(_join(out, name)):
            raise UserError(f"{out} has results already: name another folder")


def _remove_results(out: str) -> None:
    """Remove what a pipeline that failed has left, perhaps some of the files with results."""
    for name in (output_names.POSES_SHARDS, output_names.SKIPPED_SHARDS):
        if found := _match(_join(out, f"{name}-*-of-*.jsonl")):
            _file_systems().delete(found)
    if not _is_address(out):
        for folder in pathlib.Path(out).glob("beam-temp-*"):
            shutil.rmtree(folder, ignore_errors=True)


def _addresses(argument: str) -> tuple[str, list[str]] | None:
    """The folder and the images of an address, or of a list of addresses; None for a path."""
    is_list = argument.lower().endswith(".txt")
    if not _is_address(argument):
        path = pathlib.Path(argument)
        if not is_list or not path.is_file():
            return None
        lines = path.read_text(encoding="utf-8-sig", errors="replace").split("\n")
        addresses = [line.strip() for line in lines if line.strip()]
        return ("", addresses) if any(map(_is_address, addresses)) else None
    if is_list:
        lines = _read_address(argument).decode(errors="replace").split("\n")
        addresses = [line.strip() for line in lines if line.strip()]
    else:  # some object stores also say of a folder that it exists, so the files in it come first
        folder = argument.rstrip("/") + "/"
        if addresses := sorted(filter(is_image_name, _match(folder + "**"))):
            return folder, addresses
        addresses = _match(argument)
    if not addresses:
        raise UserError(f"{argument}: no images there; check the address")
    return "", addresses


def _named(parts: Sequence[tuple[str, list[str]]]) -> FoundImages:
    """The images with names as `find_files` gives them."""
    addresses = {
        address: address.removeprefix(folder) if folder else posixpath.basename(address)
        for folder, part in parts
        for address in part
    }
    if len(set(addresses.values())) < len(addresses):
        levels = zip(*(address.split("/")[:-1] for address in addresses), strict=False)
        depth = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
        addresses = {address: "/".join(address.split("/")[depth:]) for address in addresses}
    return FoundImages([(name, address) for address, name in addresses.items()], [])


def _is_address(text: str) -> bool:
    return re.match(r"[a-zA-Z][\w+.-]*://", text) is not None


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if _is_address(folder) else os.path.join(folder, name)


def _file_systems() -> Any:
    return import_beam("apache_beam.io.filesystems").FileSystems


def _match(pattern: str) -> list[str]:
    """The files that a pattern matches.

    Raises:
      UserError: the object store cannot be used.
    """
    try:
        (found,) = _file_systems().match([pattern])
    except Exception as error:  # of any kind: object stores have their own
        raise UserError(f"{pattern}: {_gist(error)}; check the address") from error
    return [metadata.path for metadata in found.metadata_list]


def _read_address(address: str) -> bytes:
    try:
        with _file_systems().open(address, compression_type="uncompressed") as file:
            return file.read()
    except Exception as error:
        line = f"image {address} cannot be opened ({_gist(error)}): check the address"
        raise ImageError(line) from None


def _write(path: str, lines: Iterable[str]) -> None:
    try:
        with _file_systems().create(path) as file:
            for line in lines:
                file.write(line.encode() + b"\n")
    except Exception as error:
        raise UserError(f"{path} cannot be written ({_gist(error)}): check the address") from error


def _gist(error: Exception, last: bool = False) -> str:
    """One line of an error's text: the first one, or the last one."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1 if last else 0] if lines else type(error).__name__
