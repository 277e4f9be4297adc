"""What a run learns, poses or boxes: its batches, and how good the network is at it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import grain
import jax
import ml_collections
import numpy as np

from rmpe_jax.codecs.boxes import BoxCodec
from rmpe_jax.codecs.poses import Codec
from rmpe_jax.data import box_pipeline, pipeline
from rmpe_jax.data.augment import Augmentation
from rmpe_jax.data.boxed_pictures import (
    BoxLabels,
    LabelledPictures,
    annotated_labels,
    label_pictures,
    soft_labels,
)
from rmpe_jax.data.mosaic import MosaicOptions
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.data.sources import open_source
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.detectors.points import LEAST_SCORE, PointDetector
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.protocol import boxes_of, evaluate
from rmpe_jax.evaluation.results import load_detections
from rmpe_jax.evaluation.top_down import predict_boxes
from rmpe_jax.pgpg.sample import open_proposals
from rmpe_jax.skeletons import get_skeleton
from rmpe_jax.top_down.prediction import make_predict

Scores = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Task:
    """The part of a run that depends on what is learned.

    Attributes:
      dataset: element i is this process's share of batch i.
      size: how much there is to learn from, in words.
      needed: names of what a training step uses of a batch.
      evaluates: whether there is a data set to evaluate on.
      evaluate: variables -> metrics named `eval/<data set>/<metric>`; the first says how good the
        network is, the greater the better.
    """

    dataset: grain.MapDataset
    size: str
    needed: tuple[str, ...]
    evaluates: bool
    evaluate: Callable[[Any], Scores]


def open_task(config: ml_collections.ConfigDict, model: nn.Module, codec: Codec | BoxCodec) -> Task:
    """The task of a run, for the network and codec of `build_network`.

    Raises:
      UserError: the data cannot be used.
    """
    if isinstance(codec, BoxCodec):
        return _detection_task(config, model, codec)
    return _pose_task(config, model, codec)


# ---- poses ---------------------------------------------------------------------------------------


def _pose_task(config: ml_collections.ConfigDict, model: nn.Module, codec: Codec) -> Task:
    data, skeleton = config.data, get_skeleton(config.model.skeleton)
    source = open_source(tuple(data.train), skeleton, tuple(data.repeats))
    dataset = pipeline.train_dataset(
        source,
        skeleton=skeleton,
        input_size=codec.input_size,
        augmentation=Augmentation(**config.augmentation),
        padding=data.padding,
        proposals=open_proposals(data.proposals, data.pgpg_model, data.patch_prob, skeleton),
        **_stream_options(config),
    )
    needed = ("image", "keypoints", "weights", "corrupt")
    evaluations = [open_dataset(spec) for spec in data.evaluate]
    predict = make_predict(model, codec, skeleton)

    def score(variables: Any) -> Scores:
        scores = {}
        for dataset in evaluations:
            metrics = _pose_metrics(config, codec, predict, variables, dataset)
            main = "AP" if "AP" in metrics else "PCKh"
            scores |= _named(dataset, main, metrics)
        return scores

    return Task(
        dataset=dataset,
        size=f"{len(source):,} people",
        needed=(*needed, "centred_from_crop") if config.sstn.enabled else needed,
        evaluates=bool(evaluations),
        evaluate=score,
    )


def _pose_metrics(
    config: ml_collections.ConfigDict,
    codec: Codec,
    predict: Callable,
    variables: Any,
    dataset: PoseDataset,
) -> Scores:
    """Metrics on the ground-truth boxes."""
    skeleton = get_skeleton(config.model.skeleton)
    boxes = boxes_of(dataset, "gt")
    found = predict_boxes(
        predict,
        variables,
        dataset,
        boxes,
        num_keypoints=skeleton.num_keypoints,
        input_size=codec.input_size,
        padding=config.data.padding,
        batch_size=config.batch_size,
        num_threads=config.data.num_threads,
    )
    return evaluate(dataset, boxes, *found, skeleton)[0]


# ---- boxes ---------------------------------------------------------------------------------------


def _detection_task(config: ml_collections.ConfigDict, model: nn.Module, codec: BoxCodec) -> Task:
    options, augmentation = config.detection, config.augmentation
    source = open_labelled_pictures(config.data)
    dataset = box_pipeline.train_dataset(
        source,
        input_size=codec.input_size,
        options=MosaicOptions(
            mosaic_prob=options.mosaic_prob,
            scale=tuple(options.scale),
            stretch=options.stretch,
            flip_prob=augmentation.flip_prob,
            color_gain=tuple(augmentation.color_gain),
            min_visible=options.min_visible,
        ),
        max_boxes=options.max_boxes,
        **_stream_options(config),
    )
    evaluations = [open_dataset(spec) for spec in config.data.evaluate]

    def score(variables: Any) -> Scores:
        detector = PointDetector(model, codec, variables, options.test_size, LEAST_SCORE)
        scores = {}
        for dataset in evaluations:
            scores |= _named(dataset, "AP50", detector_ap(detector, dataset)[0])
        return scores

    return Task(
        dataset=dataset,
        size=f"{len(source):,} pictures",
        needed=("image", "bboxes", "weights", "ignored", "corrupt"),
        evaluates=bool(evaluations),
        evaluate=score,
    )


def open_labelled_pictures(data: ml_collections.ConfigDict) -> LabelledPictures:
    """The pictures that `config.data` names for training a detector.

    Raises:
      UserError: a data set or a file of detections cannot be used.
    """
    if not data.train:
        raise UserError("no data set to train on: name one or more in config.data.train")
    files = data.detections or ("",) * len(data.train)
    labelled = [
        _labelled(open_dataset(spec), file) for spec, file in zip(data.train, files, strict=True)
    ]
    return label_pictures(labelled, data.repeats or (1,) * len(labelled))


def _labelled(dataset: PoseDataset, detections: str) -> list[tuple[Any, BoxLabels]]:
    """The pictures of a data set with their labels, soft ones if there are detections."""
    if not detections:
        return [(picture.path, annotated_labels(picture)) for picture in dataset.pictures]
    found = load_detections(detections, dataset, skip_unknown=True)
    ends = np.searchsorted(found.picture_index, np.arange(len(dataset.pictures) + 1))
    return [
        (picture.path, soft_labels(picture, found.bboxes[low:high], found.scores[low:high]))
        for picture, low, high in zip(dataset.pictures, ends, ends[1:], strict=False)
    ]


# ---- both ----------------------------------------------------------------------------------------


def _stream_options(config: ml_collections.ConfigDict) -> dict[str, Any]:
    return {
        "batch_size": config.batch_size,
        "seed": config.seed,
        "strict": config.data.strict,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def _named(dataset: PoseDataset, main: str, metrics: Scores) -> Scores:
    """The metrics by the data set's name, `main` first."""
    rest = {name: value for name, value in metrics.items() if name != main}
    ordered = {main: metrics[main], **rest}
    return {f"eval/{dataset.name}/{name}": float(value) for name, value in ordered.items()}
