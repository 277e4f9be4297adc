"""The people that a model finds in the images of a dataset, for `rmpe label`."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from rmpe_jax.data.boxed_images import DOUBTFUL_SCORE
from rmpe_jax.data.eval_pipeline import map_ahead
from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.data.labels import MATCH_IOU, FoundPeople
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.detectors.factory import open_detector
from rmpe_jax.detectors.protocol import Boxes, Detector
from rmpe_jax.evaluation.boxes import DatasetBoxes, load_detections
from rmpe_jax.evaluation.predictions import predict_dataset
from rmpe_jax.evaluation.protocol import person_scores
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model
from rmpe_jax.ops import geometry
from rmpe_jax.progress import progress
from rmpe_jax.top_down.prediction import make_predict

MIN_BOX_SCORE = 0.4  # of a detector's box in which a person is looked for
_BATCH_SIZE = 64


class ModelSource(NamedTuple):
    """A pose network, and where it looks for people who are not annotated.

    Attributes:
      model: the network.
      detector: finds people; None for no detector.
      detections: a file of a detector's boxes, instead of `detector`; "" for none.
      min_box_score: of a detector's box in which a person is looked for.
      flip_test: average with the mirrored crop.
    """

    model: PoseModel
    detector: Detector | None = None
    detections: str = ""
    min_box_score: float = MIN_BOX_SCORE
    flip_test: bool = False


class SourceSettings(NamedTuple):
    """What a `ModelSource` is opened from.

    Attributes:
      model: as of `load_pose_model`.
      detector: as of `open_detector`; None for no detector.
      detections: as of `ModelSource`.
      min_box_score: as of `ModelSource`.
      flip_test: as of `ModelSource`.
    """

    model: str = "builtin"
    detector: str | None = None
    detections: str = ""
    min_box_score: float = MIN_BOX_SCORE
    flip_test: bool = False

    def open(self) -> ModelSource:
        """Load the network and the detector.

        Raises:
          UserError: one of them cannot be used.
        """
        # Doubtful boxes are soft labels too.
        detector = open_detector(self.detector, DOUBTFUL_SCORE) if self.detector else None
        return ModelSource(load_pose_model(self.model), detector, *self[2:])


class Found(NamedTuple):
    """What was found in an image.

    Attributes:
      size: (width, height) of the image in pixels.
      boxes: those of the detector.
      people: in the joints of the network; None if nobody was looked for.
    """

    size: tuple[int, int]
    boxes: Boxes
    people: FoundPeople | None = None


class PeopleFinder:
    """Finds people in the boxes of annotated ones, and in the detector's that overlap none."""

    def __init__(
        self, source: ModelSource, num_threads: int = 2, show_progress: bool = True
    ) -> None:
        """Nothing is compiled before the first call.

        Args:
          source: the network and the detector.
          num_threads: threads that decode images.
          show_progress: print progress lines on stderr.
        """
        module, codec = source.model.build()
        skeleton = source.model.spec.skeleton
        self._predict = make_predict(module, codec, skeleton, flip_test=source.flip_test)
        self._source, self._num_threads = source, num_threads
        self._show_progress = show_progress

    def __call__(
        self, dataset: PoseDataset, boxes: Sequence[Boxes] | None = None
    ) -> list[Found | str]:
        """What is found in each image, or why it cannot be read.

        Args:
          dataset: the images with the annotated people.
          boxes: in each image, instead of those of the source's detector.

        Raises:
          UserError: the network does not have the joints of its skeleton.
        """
        detector = self._source.detector
        looked = look(dataset, boxes, detector, self._num_threads, self._show_progress)
        dataset = readable(dataset, looked)
        people = iter(self._people(dataset, [x.boxes for x in looked if not isinstance(x, str)]))
        return [x if isinstance(x, str) else x._replace(people=next(people)) for x in looked]

    def _people(self, dataset: PoseDataset, boxes: Sequence[Boxes]) -> list[FoundPeople]:
        """The people of each image, in the network's joints."""
        if not dataset.images:
            return []
        model = self._source.model
        chosen = _boxes_to_look_in(dataset, boxes, self._source.min_box_score)
        predictions = predict_dataset(
            self._predict,
            model.variables,
            dataset,
            chosen,
            model.spec.skeleton,
            model.spec.crop,
            batch_size=_BATCH_SIZE,
            num_threads=self._num_threads,
            show_progress=self._show_progress,
        )
        scores = person_scores(predictions.keypoint_scores, chosen.scores).astype(np.float32)
        ends = np.searchsorted(chosen.image_index, np.arange(len(dataset.images) + 1))
        found = []
        for record, (low, high) in zip(dataset.images, itertools.pairwise(ends), strict=True):
            people = chosen.person_index[low:high]
            ids = np.full(len(people), -1)
            ids[people >= 0] = record.person_ids[people[people >= 0]]
            found.append(
                FoundPeople(
                    predictions.keypoints[low:high],
                    predictions.keypoint_scores[low:high],
                    chosen.bboxes[low:high],
                    scores[low:high],
                    ids,
                )
            )
        return found


def look(
    dataset: PoseDataset,
    boxes: Sequence[Boxes] | None,
    detector: Detector | None = None,
    num_threads: int = 2,
    show_progress: bool = True,
) -> list[Found | str]:
    """The size and the boxes of each image, or why it cannot be read.

    Images are decoded, because training would stop at a damaged one.

    Args:
      dataset: the images.
      boxes: in each image, instead of those of the detector.
      detector: finds boxes; None for none.
      num_threads: threads that decode images.
      show_progress: print a progress line on stderr.
    """

    def read(record: ImageRecord) -> np.ndarray | ImageError:
        try:
            return read_image(record.path)
        except ImageError as error:
            return error

    images = map_ahead(read, dataset.images, num_threads)
    if show_progress:
        images = progress(images, len(dataset.images), "images")
    found: list[Found | str] = []
    for index, (record, image) in enumerate(zip(dataset.images, images, strict=True)):
        if isinstance(image, ImageError):
            found.append(str(image))
            continue
        if boxes is not None:
            in_image = boxes[index]
        else:
            in_image = detector(image, record.path.name) if detector else _no_boxes()
        found.append(Found((image.shape[1], image.shape[0]), in_image))
    return found


def readable(dataset: PoseDataset, found: Sequence[Found | str]) -> PoseDataset:
    """The images that can be read, with their sizes.

    Args:
      dataset: the images.
      found: in each of them.
    """
    images = [
        dataclasses.replace(record, declared_size=image.size)
        for record, image in zip(dataset.images, found, strict=True)
        if not isinstance(image, str)
    ]
    return dataclasses.replace(dataset, images=tuple(images))


def boxes_of_file(path: str, dataset: PoseDataset) -> list[Boxes]:
    """The boxes of a detector's file in each image.

    Raises:
      UserError: as of `load_detections`.
    """
    found = load_detections(path, dataset, skip_unknown=True)
    ends = np.searchsorted(found.image_index, np.arange(len(dataset.images) + 1))
    return [
        Boxes(found.bboxes[low:high], found.scores[low:high])
        for low, high in itertools.pairwise(ends)
    ]


def _no_boxes() -> Boxes:
    return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


def _boxes_to_look_in(
    dataset: PoseDataset, boxes: Sequence[Boxes], min_score: float
) -> DatasetBoxes:
    """The boxes of all annotated people, and those of the detector that are nobody of them."""
    columns = []
    for index, (record, found) in enumerate(zip(dataset.images, boxes, strict=True)):
        people = np.flatnonzero(~record.iscrowd)
        annotated = record.bboxes[people]
        overlap = geometry.box_iou(found.bboxes.astype(np.float64), annotated)
        others = (overlap.max(-1, initial=0) < MATCH_IOU) & (found.scores >= min_score)
        count = len(people) + int(others.sum())
        columns.append(
            (
                np.full(count, index),
                np.concatenate([annotated, found.bboxes[others]]).astype(np.float32),
                np.concatenate([np.ones(len(people)), found.scores[others]]).astype(np.float32),
                np.concatenate([people, np.full(int(others.sum()), -1)]),
            )
        )
    image_index, bboxes, scores, person_index = map(np.concatenate, zip(*columns, strict=True))
    return DatasetBoxes(image_index, bboxes, scores, person_index)
