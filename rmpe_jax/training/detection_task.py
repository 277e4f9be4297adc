"""The task of a detector: mosaics of images with boxes, centers and sides, box AP50."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from rmpe_jax.config import DataConfig, RunConfig, model_spec
from rmpe_jax.data import box_pipeline
from rmpe_jax.data.boxed_images import (
    BoxLabels,
    LabeledImages,
    annotated_labels,
    label_images,
    soft_labels,
)
from rmpe_jax.data.inspection import inspect_detections, sample_sizes
from rmpe_jax.data.mosaic import MosaicOptions
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.detectors.evaluation import detector_ap
from rmpe_jax.detectors.points import EVALUATION_THRESHOLD, PointDetector
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_detections
from rmpe_jax.models.spec import require_detector
from rmpe_jax.training.objectives import DetectionObjective
from rmpe_jax.training.tasks import (
    ALLOW_SUSPICIOUS,
    Scores,
    Task,
    named_scores,
    open_datasets,
    stream_options,
)


def detection_task(run: RunConfig) -> Task:
    """The task of a run with `model.task="detection"`.

    Raises:
      UserError: the network cannot be built, or the data cannot be used.
    """
    options, spec = run.detection, require_detector(model_spec(run))
    model, codec = spec.build()
    datasets = open_datasets(run.data, None)
    source = open_labeled_images(run.data, datasets)
    dataset = box_pipeline.train_dataset(
        source,
        input_size=spec.input_size,
        options=MosaicOptions(
            mosaic_prob=options.mosaic_prob,
            scale=options.scale,
            stretch=options.stretch,
            flip_prob=run.augmentation.flip_prob,
            color_gain=run.augmentation.color_gain,
            min_visible=options.min_visible,
        ),
        max_boxes=options.max_boxes,
        **stream_options(run),
    )
    evaluations = [datasets[text] for text in run.data.evaluate]

    def score(variables: Any) -> Scores:
        detector = PointDetector(model, codec, variables, spec.test_size, EVALUATION_THRESHOLD)
        scores = {}
        for dataset in evaluations:
            scores |= named_scores(dataset.name, "AP50", detector_ap(detector, dataset)[0])
        return scores

    objective = DetectionObjective(codec, options.bbox_weight)
    return Task(
        spec=spec,
        model=model,
        objective=objective,
        dataset=dataset,
        size=f"{len(source):,} images",
        evaluate=score if evaluations else None,
        host_keys=objective.batch_keys,
    )


def open_labeled_images(data: DataConfig, datasets: Mapping[str, PoseDataset]) -> LabeledImages:
    """The images that `config.data` names for training a detector.

    Args:
      data: names the datasets and files of detections.
      datasets: as from `open_datasets`.

    Raises:
      UserError: there is no dataset, or a file of detections cannot be used.
    """
    if not data.train:
        raise UserError("no dataset to train on: name one or more in config.data.train")
    files = data.detections or ("",) * len(data.train)
    labeled = [
        _labeled(datasets[text], file, data.max_suspicious)
        for text, file in zip(data.train, files, strict=True)
    ]
    return label_images(labeled, data.repeats or (1,) * len(labeled))


def _labeled(
    dataset: PoseDataset, detections: str, max_suspicious: float
) -> list[tuple[Any, BoxLabels]]:
    """The images of a dataset with their labels, soft ones if there are detections."""
    if not detections:
        return [(record.path, annotated_labels(record)) for record in dataset.images]
    found = load_detections(detections, dataset, skip_unknown=True)
    sizes = sample_sizes(dataset)
    findings = inspect_detections(dataset, found.image_index, found.bboxes, sizes)
    findings.require_few(detections, max_suspicious, ALLOW_SUSPICIOUS)
    findings.warn(detections)
    ends = np.searchsorted(found.image_index, np.arange(len(dataset.images) + 1))
    return [
        (record.path, soft_labels(record, found.bboxes[low:high], found.scores[low:high]))
        for record, low, high in zip(dataset.images, ends, ends[1:], strict=False)
    ]
