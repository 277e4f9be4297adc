"""What the STN of a trained system sees: crops, the part of them that it looks at, and its view."""

import os
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data.eval_pipeline import CropRequest, eval_batches
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.evaluation.boxes import boxes_of
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.rmpe import stn
from rmpe_jax.ops import geometry
from rmpe_jax.visualize.sheets import contact_sheet

_FRAME = (140, 232, 130)
_SCALE = 2  # of the tiles


def misplaced(
    dataset: PoseDataset, boxes: str | os.PathLike, num: int
) -> tuple[list[CropRequest], Float[np.ndarray, "n 4"]]:
    """Boxes that overlap a person by an IoU of .5 to .75, and the boxes of these people.

    Args:
      dataset: with the annotated people.
      boxes: a detections file.
      num: boxes wanted; the first of the data set.
    """
    found = boxes_of(dataset, boxes, skip_unknown=True)
    items, people = [], []
    for index, (picture, bbox) in enumerate(zip(found.image_index, found.bboxes, strict=True)):
        record = dataset.images[picture]
        iou = geometry.box_iou(bbox[None], record.bboxes)[0]
        if 0.5 < iou.max(initial=0) < 0.75:
            items.append(CropRequest(record.path, bbox, index))
            people.append(record.bboxes[iou.argmax()])
    return items[:num], np.array(people[:num])


def views_sheet(
    model: PoseModel, items: list[CropRequest], columns: int = 12
) -> UInt8[np.ndarray, "h w 3"]:
    """Crops with the frame of the STN's view in them, each with the view to its right.

    Args:
      model: a network with a spatial transformer.
      items: boxes to crop.
      columns: tiles in a row.
    """
    module, codec = model.build()
    size = codec.input_size
    batches = eval_batches(items, crop=model.spec.crop, batch_size=len(items))
    tiles = []
    for batch in batches:
        crops = jnp.asarray(batch["image"])
        theta: Any = module.apply(model.variables, codec.inputs(crops), method="theta")
        views = jax.device_get(stn(crops.astype(jnp.float32), theta))
        frames = jax.device_get(view_corners(theta, size))
        for crop, view, frame in zip(batch["image"], views, frames, strict=True):
            tiles += [_framed(crop, frame), _enlarged(np.clip(view, 0, 255).astype(np.uint8))]
    return contact_sheet(tiles, columns)


def view_corners(
    theta: Float[jax.Array, "b 2 3"], size: tuple[int, int]
) -> Float[jax.Array, "b 4 2"]:
    """Where the corners of the STN's views are in the crops, in pixels."""
    corners = jnp.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], theta.dtype)
    half = (jnp.array(size[::-1]) - 1) / 2
    return (geometry.transform_points(theta, corners) + 1) * half


def _framed(crop: np.ndarray, frame: np.ndarray) -> np.ndarray:
    enlarged = _enlarged(crop)
    points = np.round((frame + 0.5) * _SCALE).astype(np.int32)
    return cv2.polylines(enlarged, [points], True, _FRAME, 1, cv2.LINE_AA)


def _enlarged(image: np.ndarray) -> np.ndarray:
    return cv2.resize(image, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_LINEAR)
