"""Scenes as COCO's files: annotations, a detector's results, a folder of pictures.

Boxes in COCO's files are (x, y, width, height); the id of a picture is its scene's seed.
"""

import os
import pathlib
from collections.abc import Callable, Iterable

import cv2
import numpy as np

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic.placement import MAX_PEOPLE
from rmpe_jax.data.synthetic.scene import SIZE, Scene, scene
from rmpe_jax.files import replacing, write_json
from rmpe_jax.ops.geometry import xywh_from_xyxy

_JPEG_QUALITY = 95


def coco_annotations(seeds: Iterable[int], size: tuple[int, int] = SIZE) -> dict:
    """Person keypoints of some scenes as COCO's annotation json."""
    file = _empty_annotations()
    for seed in seeds:
        _add_annotations(file, seed, scene(seed, size))
    return file


def coco_detections(seeds: Iterable[int], size: tuple[int, int] = SIZE) -> list[dict]:
    """The detector's boxes for some scenes as COCO's result list."""
    return [entry for seed in seeds for entry in _detections_of(seed, scene(seed, size))]


def write_coco_folder(
    folder: str | os.PathLike,
    seeds: Iterable[int],
    size: tuple[int, int] = SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Write `images/*.jpg`, `annotations/person_keypoints.json` and `detections.json`.

    Every file appears whole or not at all; the annotations come last, so that a folder that has
    them is complete.

    Args:
      folder: created with its parents if it is not there.
      seeds: one scene each.
      size: (height, width) of the pictures.
      progress: called after each picture with the number written so far.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    annotations, detections = _empty_annotations(), []
    for count, seed in enumerate(seeds, start=1):
        drawn = scene(seed, size)
        with replacing(folder / "images" / _file_name(seed), "wb") as file:
            file.write(_jpeg(drawn.image))
        _add_annotations(annotations, seed, drawn)
        detections += _detections_of(seed, drawn)
        progress(count)
    write_json(folder / "detections.json", detections)
    write_json(folder / "annotations/person_keypoints.json", annotations)


def _file_name(seed: int) -> str:
    return f"{seed:06d}.jpg"


def _jpeg(image: np.ndarray) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, _JPEG_QUALITY]
    return cv2.imencode(".jpg", image[..., ::-1], options)[1].tobytes()


def _empty_annotations() -> dict:
    skeleton = skeletons.COCO
    person = {
        "id": 1,
        "name": "person",
        "supercategory": "person",
        "keypoints": list(skeleton.joints),
        "skeleton": (skeleton.limb_indices + 1).tolist(),
    }
    info = {"description": "scenes of people drawn from seeds"}
    return {"info": info, "images": [], "annotations": [], "categories": [person]}


def _add_annotations(file: dict, seed: int, drawn: Scene) -> None:
    height, width = drawn.instances.shape
    file["images"].append(
        {"id": seed, "file_name": _file_name(seed), "height": height, "width": width}
    )
    labelled = np.concatenate([drawn.keypoints, drawn.visibility[..., None]], axis=-1)
    boxes = xywh_from_xyxy(drawn.bboxes)
    for index, (points, box, area) in enumerate(zip(labelled, boxes, drawn.area, strict=True)):
        file["annotations"].append(
            {
                "id": seed * MAX_PEOPLE + index + 1,  # from 1: an id of 0 is "no match" to COCO
                "image_id": seed,
                "category_id": 1,
                "iscrowd": 0,
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": [round(float(value), 3) for value in points.ravel()],
                "bbox": box.tolist(),
                "area": float(area),
            }
        )


def _detections_of(seed: int, drawn: Scene) -> list[dict]:
    boxes = xywh_from_xyxy(drawn.detections.bboxes)
    return [
        {
            "image_id": seed,
            "category_id": 1,
            "bbox": [round(float(value), 2) for value in box],
            "score": round(float(score), 4),
        }
        for box, score in zip(boxes, drawn.detections.scores, strict=True)
    ]
