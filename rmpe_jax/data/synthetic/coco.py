"""Writes scenes in COCO's formats: annotations, detection results, a folder of images.

Boxes in COCO's files are (x, y, width, height). The image id is the seed of the scene.
"""

import os
import pathlib
from collections.abc import Callable, Iterable

import cv2
import numpy as np
from jaxtyping import UInt8

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic.placement import MAX_PEOPLE
from rmpe_jax.data.synthetic.scene import SIZE, Scene, make_scene
from rmpe_jax.files import atomic_write, write_json
from rmpe_jax.ops.geometry import xywh_from_xyxy

_JPEG_QUALITY = 95


def coco_annotations(seeds: Iterable[int], size: tuple[int, int] = SIZE) -> dict:
    """Person keypoints of scenes as a COCO annotation document."""
    document = _empty_annotations()
    for seed in seeds:
        _add_annotations(document, seed, make_scene(seed, size))
    return document


def coco_detections(seeds: Iterable[int], size: tuple[int, int] = SIZE) -> list[dict]:
    """The detector's boxes of scenes as a COCO result list."""
    return [entry for seed in seeds for entry in _detections_of(seed, make_scene(seed, size))]


def write_coco_folder(
    folder: str | os.PathLike,
    seeds: Iterable[int],
    size: tuple[int, int] = SIZE,
    progress: Callable[[int], object] = lambda count: None,
) -> None:
    """Write `images/*.jpg`, `detections.json` and `annotations/person_keypoints.json`.

    Each file is written atomically, the annotations last: a folder with annotations is complete.

    Args:
      folder: created with its parents if missing.
      seeds: one for each scene.
      size: (height, width) of the images.
      progress: called after each image with the number of images written so far.

    Raises:
      UserError: the folder cannot be written.
    """
    folder = pathlib.Path(folder)
    annotations, detections = _empty_annotations(), []
    for count, seed in enumerate(seeds, start=1):
        scene = make_scene(seed, size)
        with atomic_write(folder / "images" / _file_name(seed), "wb") as file:
            file.write(_jpeg(scene.image))
        _add_annotations(annotations, seed, scene)
        detections += _detections_of(seed, scene)
        progress(count)
    write_json(folder / "detections.json", detections)
    write_json(folder / "annotations/person_keypoints.json", annotations)


def _file_name(seed: int) -> str:
    return f"{seed:06d}.jpg"


def _jpeg(image: UInt8[np.ndarray, "h w 3"]) -> bytes:
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


def _add_annotations(document: dict, seed: int, scene: Scene) -> None:
    height, width = scene.instances.shape
    document["images"].append(
        {"id": seed, "file_name": _file_name(seed), "height": height, "width": width}
    )
    joints = np.concatenate([scene.keypoints, scene.visibility[..., None]], axis=-1)
    boxes = xywh_from_xyxy(scene.bboxes)
    for index, (points, box, area) in enumerate(zip(joints, boxes, scene.area, strict=True)):
        document["annotations"].append(
            {
                "id": seed * MAX_PEOPLE + index + 1,  # from 1: pycocotools reads id 0 as "no match"
                "image_id": seed,
                "category_id": 1,
                "iscrowd": 0,
                "num_keypoints": int((points[:, 2] > 0).sum()),
                "keypoints": [round(float(value), 3) for value in points.ravel()],
                "bbox": box.tolist(),
                "area": float(area),
            }
        )


def _detections_of(seed: int, scene: Scene) -> list[dict]:
    boxes = xywh_from_xyxy(scene.detections.bboxes)
    return [
        {
            "image_id": seed,
            "category_id": 1,
            "bbox": [round(float(value), 2) for value in box],
            "score": round(float(score), 4),
        }
        for box, score in zip(boxes, scene.detections.scores, strict=True)
    ]
