"""Detectors that look up boxes by image name: annotated people, or boxes of a file."""

import collections
import dataclasses
import logging
import math
import os
import re
from collections.abc import Iterable, Mapping
from typing import ClassVar

import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.readers.annotations import NUMBER, field, identifier
from rmpe_jax.data.readers.records import PoseDataset, trainable
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import ImageId, box_arrays, image_stem, person_records
from rmpe_jax.files import read_json

NO_BOXES = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclasses.dataclass
class LookupDetector:
    """Looks up boxes by the image's file name without folders and extension; a `Detector`.

    The log reports images without boxes once: `check_names` counts them; otherwise the first call
    without boxes is reported.

    Attributes:
      source: where the boxes are from, for messages.
      boxes: the boxes of each image, by name or by COCO's integer id. File names end with the id:
        139 is the image `000000000139.jpg` or `COCO_val2014_000000000139.jpg`.
    """

    source: str
    boxes: Mapping[ImageId, Boxes]
    uses_stored_pixels: ClassVar[bool] = True  # boxes ignore the EXIF orientation
    _has_warned: bool = dataclasses.field(default=False, init=False)

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str) -> Boxes:
        """The boxes of the image of this name; none if it is unknown."""
        del image
        key = self._key_of(name)
        if key is None:
            self._warn(f"{self.source} has no boxes of image {name}; others are not reported")
            return NO_BOXES
        return self.boxes[key]

    def check_names(self, names: Iterable[str]) -> None:
        """Check, before a run, that every image has boxes of its own, and count those without.

        Args:
          names: of all images, with folders.

        Raises:
          UserError: the boxes of one image would be found for two.
        """
        owners: dict[ImageId, str] = {}
        count, without = 0, []
        for name in names:
            count += 1
            key = self._key_of(name)
            if key is None:
                without.append(name)
            elif owners.setdefault(key, name) != name:
                raise UserError(
                    f"{self.source} has boxes of an image {key!r}, which may be {owners[key]} or "
                    f"{name}: give only one of them, or name the files by the ids of their images"
                )
        if without:
            line = f"has no boxes of {len(without):,} of {count:,} images, such as {without[0]}"
            self._warn(f"{self.source} {line}")

    def _key_of(self, name: str) -> ImageId | None:
        stem = image_stem(name)
        number = re.search(r"\d+$", stem)
        keys = (stem, int(number[0])) if number else (stem,)
        return next((key for key in keys if key in self.boxes), None)

    def _warn(self, line: str) -> None:
        if not self._has_warned:
            logging.getLogger(__name__).warning(line)
        self._has_warned = True


def ground_truth(dataset: PoseDataset) -> LookupDetector:
    """The annotated boxes of a dataset, with score 1.

    As in evaluation on ground-truth boxes, crowds and people without labeled joints are left out.

    Raises:
      UserError: two images have the same name.
    """
    boxes: dict[ImageId, Boxes] = {}
    for record in dataset.images:
        if record.path.stem in boxes:
            raise _ambiguous_name(record.path.stem, dataset.name)
        bboxes = record.bboxes[trainable(record)].astype(np.float32)
        boxes[record.path.stem] = Boxes(bboxes, np.ones(len(bboxes), np.float32))
    return LookupDetector(dataset.name, boxes)


def from_file(
    path: str | os.PathLike,
    annotations: str | os.PathLike | None = None,
    score_threshold: float = -math.inf,
) -> LookupDetector:
    """The boxes of a detections file, in COCO's result format or AlphaPose's list of boxes.

    An `image_id` is a file name, with or without folders and extension, or COCO's integer id.
    Boxes without area or with NaN are skipped and counted in the log.

    Args:
      path: the detections.
      annotations: a file in COCO's format whose `images` give the file names of all ids. Without
        it, integer ids are matched with the numbers at the end of file names.
      score_threshold: boxes with lower scores are left out.

    Raises:
      UserError: a file cannot be used, images are not in the annotations, or two images in
        different folders have the same name.
    """
    records = person_records(path)
    bboxes, scores, usable = box_arrays(records)
    if skipped := int((~usable).sum()):
        line = "%s: %d boxes without area or with NaN are skipped"
        logging.getLogger(__name__).warning(line, path, skipped)
    source = f"detections file {path}"
    rows = _rows_by_key([record["image_id"] for record in records], annotations, source)
    selected = usable & (scores >= score_threshold)
    boxes = {}
    for key, rows_of_image in rows.items():
        chosen = [row for row in rows_of_image if selected[row]]
        chosen = np.array(sorted(chosen, key=lambda row: -scores[row]), np.int64)
        boxes[key] = Boxes(bboxes[chosen], scores[chosen])
    return LookupDetector(source, boxes)


def _rows_by_key(
    image_ids: list[ImageId], annotations: str | os.PathLike | None, source: str
) -> dict[ImageId, list[int]]:
    """The rows of each image in a detections file; empty for annotated images without boxes."""
    names = _file_names(annotations) if annotations else {}
    counts: collections.Counter[ImageId] = collections.Counter(map(image_stem, names.values()))
    rows: dict[ImageId, list[int]] = {stem: [] for stem in counts}
    owners: dict[ImageId, ImageId] = {}
    for row, image_id in enumerate(image_ids):
        name = names.get(image_id, image_id)
        key = image_stem(name) if isinstance(name, str) else name
        if annotations and key not in rows:
            raise UserError(
                f"{source} has boxes of {image_id}, which is not in {annotations}: give the "
                "annotations of these images"
            )
        if counts[key] > 1 or owners.setdefault(key, image_id) != image_id:
            raise _ambiguous_name(key, source)
        rows.setdefault(key, []).append(row)
    return rows


def _file_names(annotations: str | os.PathLike) -> dict[ImageId, str]:
    document = read_json(annotations, "annotation file")
    images = field(document, "images", f"annotation file {annotations}", list)
    where = f"annotation file {annotations}: an image"
    return {
        identifier(image, "id", where, (*NUMBER, str)): field(image, "file_name", where, str)
        for image in images
    }


def _ambiguous_name(name: ImageId, source: str) -> UserError:
    return UserError(
        f"{source} has two images named {name}, whose boxes cannot be looked up by name: use one "
        "folder at a time"
    )
