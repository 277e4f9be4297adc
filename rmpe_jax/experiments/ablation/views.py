"""Contact sheets of a trained STN: crops with the outline of its view, and the view itself."""

import os
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from rmpe_jax.data.eval_pipeline import CropRequest, eval_batches
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.rmpe import stn
from rmpe_jax.ops import geometry
from rmpe_jax.visualize.sheets import contact_sheet

_OUTLINE_COLOR = (140, 232, 130)
_SCALE = 2  # enlargement of the tiles


def misplaced_boxes(
    dataset: PoseDataset, boxes: str | os.PathLike, num: int
) -> tuple[list[CropRequest], Float[np.ndarray, "n 4"]]:
    """Detected boxes with an IoU of .5 to .75 with a person's box.

    Args:
      dataset: the annotated images.
      boxes: a detections file.
      num: maximum number of boxes; the first ones of the dataset are used.

    Returns:
      Requests for crops of the boxes, and the (n, 4) xyxy boxes of the people, in image pixels.
    """
    found = load_boxes(dataset, boxes, skip_unknown=True)
    requests, people = [], []
    for index, (image_index, bbox) in enumerate(zip(found.image_index, found.bboxes, strict=True)):
        record = dataset.images[image_index]
        iou = geometry.box_iou(bbox[None], record.bboxes)[0]
        if 0.5 < iou.max(initial=0) < 0.75:
            requests.append(CropRequest(record.path, bbox, index))
            people.append(record.bboxes[iou.argmax()])
    return requests[:num], np.array(people[:num], np.float32).reshape(-1, 4)


def views_sheet(
    model: PoseModel, requests: list[CropRequest], columns: int = 12
) -> UInt8[np.ndarray, "h w 3"]:
    """A sheet of crops with the outline of the STN's view, each with the view to its right.

    Args:
      model: a network with a spatial transformer.
      requests: boxes to crop.
      columns: tiles per row.

    Returns:
      (h, w, 3) RGB.
    """
    module, codec = model.build()
    size, view_size = codec.input_size, model.spec.view_size
    batches = eval_batches(requests, crop=model.spec.crop, batch_size=len(requests))
    tiles = []
    for batch in batches:
        crops = jnp.asarray(batch["image"])
        theta: Any = module.apply(model.variables, codec.inputs(crops), method="theta")
        views = jax.device_get(stn(crops.astype(jnp.float32), theta, view_size))
        outlines = jax.device_get(view_corners(theta, size, view_size))
        for crop, view, outline in zip(batch["image"], views, outlines, strict=True):
            view = np.clip(view, 0, 255).astype(np.uint8)
            tiles += [_with_outline(crop, outline), _enlarged(view)]
    return contact_sheet(tiles, columns)


def view_corners(
    theta: Float[jax.Array, "b 2 3"], size: tuple[int, int], view_size: tuple[int, int]
) -> Float[jax.Array, "b 4 2"]:
    """Corners (b, 4, 2) of the STN's views in crop pixels.

    Args:
      theta: of the STN.
      size: (height, width) of the crops.
      view_size: (height, width) of the views.
    """
    half, half_view = ((jnp.array(sides[::-1]) - 1) / 2 for sides in (size, view_size))
    corners = jnp.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], theta.dtype) * half_view / half
    return (geometry.transform_points(theta, corners) + 1) * half


def _with_outline(
    crop: UInt8[np.ndarray, "h w 3"], corners: Float[np.ndarray, "4 2"]
) -> UInt8[np.ndarray, "h2 w2 3"]:
    enlarged = _enlarged(crop)
    points = np.round((corners + 0.5) * _SCALE).astype(np.int32)
    return cv2.polylines(enlarged, [points], True, _OUTLINE_COLOR, 1, cv2.LINE_AA)


def _enlarged(image: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h2 w2 3"]:
    return cv2.resize(image, None, fx=_SCALE, fy=_SCALE, interpolation=cv2.INTER_LINEAR)
