"""Detectors that look boxes up by the image's name: annotated people, or boxes of a file."""

import dataclasses
import logging
import math
import os
import re
from collections.abc import Mapping

import numpy as np
from jaxtyping import UInt8

from rmpe_jax.data.readers.annotations import field
from rmpe_jax.data.readers.records import PoseDataset, trainable
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import ImageId, box_arrays, person_records, picture_stem
from rmpe_jax.files import read_json

NOBODY = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))


@dataclasses.dataclass(frozen=True)
class BoxesByName:
    """Boxes looked up by the picture's file name without folders and extension; a `Detector`.

    Attributes:
      source: what the boxes are from, for messages.
      boxes: by name, or by COCO's integer id, which a file name ends with: 139 is the picture
        `000000000139.jpg` and `COCO_val2014_000000000139.jpg`.
    """

    source: str
    boxes: Mapping[ImageId, Boxes]

    def __call__(self, image: UInt8[np.ndarray, "h w 3"], name: str) -> Boxes:
        """The boxes of the picture of this name: none, and a line in the log, if it is unknown."""
        del image
        stem = picture_stem(name)
        number = re.search(r"\d+$", stem)
        for key in (stem, int(number[0])) if number else (stem,):
            if key in self.boxes:
                return self.boxes[key]
        logging.getLogger(__name__).warning("%s has no boxes of picture %s", self.source, name)
        return NOBODY


def ground_truth(dataset: PoseDataset) -> BoxesByName:
    """The annotated boxes of a data set, with score 1.

    As in evaluation on ground-truth boxes: no crowds, nobody without a labelled joint.

    Raises:
      UserError: two pictures have one name.
    """
    boxes: dict[ImageId, Boxes] = {}
    for picture in dataset.images:
        if picture.path.stem in boxes:
            raise _one_name(picture.path.stem, dataset.name)
        bboxes = picture.bboxes[trainable(picture)]
        boxes[picture.path.stem] = Boxes(bboxes, np.ones(len(bboxes), np.float32))
    return BoxesByName(dataset.name, boxes)


def from_file(
    path: str | os.PathLike,
    annotations: str | os.PathLike | None = None,
    score_threshold: float = -math.inf,
) -> BoxesByName:
    """Boxes of a detections file, in COCO's result form or AlphaPose's list of boxes.

    An `image_id` is a file name with or without folders and extension, or COCO's integer id.
    Boxes without area or with NaN are left out and counted in the log.

    Args:
      path: the detections.
      annotations: a file of COCO's form whose `images` give the file names of all ids; without
        one, integer ids are taken for the numbers that file names end with.
      score_threshold: boxes that score less are left out.

    Raises:
      UserError: a file cannot be used, pictures are not in the annotations, or two have one name
        in different folders.
    """
    records = person_records(path)
    bboxes, scores, sound = box_arrays(path, records)
    if skipped := int((~sound).sum()):
        line = "%s: %d boxes without area or with NaN are left out"
        logging.getLogger(__name__).warning(line, path, skipped)
    source = f"detections file {path}"
    rows = _rows_by_key([record["image_id"] for record in records], annotations, source)
    wanted = sound & (scores >= score_threshold)
    boxes = {}
    for key, of_picture in rows.items():
        chosen = [row for row in of_picture if wanted[row]]
        chosen = np.array(sorted(chosen, key=lambda row: -scores[row]), np.int64)
        boxes[key] = Boxes(bboxes[chosen], scores[chosen])
    return BoxesByName(source, boxes)


def _rows_by_key(
    image_ids: list[ImageId], annotations: str | os.PathLike | None, source: str
) -> dict[ImageId, list[int]]:
    """The rows of each picture of a file, those of pictures without boxes being none."""
    names = _file_names(annotations) if annotations else {}
    rows: dict[ImageId, list[int]] = {picture_stem(name): [] for name in names.values()}
    owners: dict[ImageId, ImageId] = {}
    for row, image_id in enumerate(image_ids):
        name = names.get(image_id, image_id)
        key = picture_stem(name) if isinstance(name, str) else name
        if annotations and key not in rows:
            raise UserError(
                f"{source} has boxes of {image_id}, which is not in {annotations}: give the "
                "annotations of these pictures"
            )
        if owners.setdefault(key, image_id) != image_id:
            raise _one_name(key, source)
        rows.setdefault(key, []).append(row)
    return rows


def _file_names(annotations: str | os.PathLike) -> dict[ImageId, str]:
    document = read_json(annotations, "annotation file")
    images = field(document, "images", f"annotation file {annotations}", list)
    where = f"annotation file {annotations}: an image"
    return {
        field(image, "id", where, (int, str)): field(image, "file_name", where, str)
        for image in images
    }


def _one_name(name: ImageId, source: str) -> UserError:
    return UserError(
        f"{source} has two pictures named {name}, whose boxes cannot be told apart by name: use "
        "one folder at a time"
    )
