"""Output layouts of detection networks, and decoders that read people's boxes from them.

A decoder takes a network's outputs for one image, the input's size and the index of the class
"person". It returns the box of every candidate (n, 4), xyxy in pixels of the network's input, and
its score as a person (n,), regardless of the scores of other classes. It raises a `LayoutError` if
the outputs have another layout. "cells" are the cells of grids of strides 8, 16, 32 (or 8 to 64, or
4 to 32), row by row, one grid after another. Where layouts have the same shapes, the values decide:
logits are negative for most candidates, and scores never are.
"""

from collections.abc import Callable, Container, Sequence

import numpy as np
from jaxtyping import Float
from scipy.special import expit, softmax

Outputs = Sequence[np.ndarray]
Candidates = tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, " n"]]
Decoder = Callable[[Outputs, tuple[int, int], int], Candidates]

_STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
_FASTESTDET_STRIDE = 16
_PICODET_STRIDES = (8, 16, 32, 64)
_PICODET_BINS = 8  # of a distance, 0 to 7 strides
_MAX_SELECTED = 1000
_COCO_IDS = 91  # classes of a network whose classes are COCO's category ids, 0 to 90
_COCO_IDS_AND_NOTHING = 92  # with softmax and a class "no object" (DETR, YOLOS), not decoded here


class LayoutError(Exception):
    """The outputs have another layout."""


def decode_yolox(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """YOLOX (Ge et al., 2021): (1, cells, 5 + classes).

    A row holds x, y in cells from the cell's corner, log width, log height in cells, objectness,
    class scores; the score is objectness times class score.
    """
    grids = {len(grid[1]): grid for grid in _grids(input_size)}
    rows = _table(outputs, grids.keys(), 6 + person_class)
    corners, stride = grids[len(rows)]
    bboxes = _xyxy((rows[:, :2] + corners) * stride, np.exp(rows[:, 2:4]) * stride)
    return bboxes, rows[:, 4] * rows[:, 5 + person_class]


def decode_yolov5(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """YOLOv5, YOLOv7: (1, 3 * cells, 5 + classes).

    A row holds center x, y, width, height in input pixels, objectness, class scores.
    """
    counts = {3 * len(stride) for _, stride in _grids(input_size)}
    rows = _table(outputs, counts, 6 + person_class)
    return _xyxy(rows[:, :2], rows[:, 2:4]), rows[:, 4] * rows[:, 5 + person_class]


def decode_yolov8(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """YOLOv8, YOLO11, YOLO12: (1, 4 + classes, cells); the pose networks too.

    A column holds center x, y, width, height in input pixels, class scores.
    """
    counts = {len(stride) for _, stride in _grids(input_size)}
    turned = [output.swapaxes(-1, -2) for output in outputs if output.ndim > 1]
    rows = _table(turned, counts, 5 + person_class)
    if any(_single(output).shape == (len(rows), 4) for output in outputs):
        raise LayoutError  # the rows are scores, and the boxes are beside them
    return _xyxy(rows[:, :2], rows[:, 2:4]), rows[:, 4 + person_class]


def decode_yolov10(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """YOLOv10, YOLO26 and exports that include NMS: (1, at most 1000, 6).

    A row holds x1, y1, x2, y2 in input pixels, score, class.
    """
    del input_size
    rows = _table(outputs, range(_MAX_SELECTED + 1), 6)
    if rows.shape[1] != 6 or any(output.size == 1 for output in outputs):  # PaddleDetection counts
        raise LayoutError
    return rows[:, :4], np.where(rows[:, 5] == person_class, rows[:, 4], 0)


def decode_ssd(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """SSD with decoded boxes: (1, n, 4) and (1, n, classes), where the background is a class.

    Boxes are x1, y1, x2, y2 as fractions of the input. If both outputs have four columns, the first
    one has the boxes.
    """
    arrays = [_single(output) for output in outputs]
    if len(arrays) != 2 or any(array.ndim != 2 for array in arrays):
        raise LayoutError
    boxes, scores = sorted(arrays, key=lambda array: array.shape[1] != 4)
    if boxes.shape != (len(scores), 4) or scores.shape[1] <= person_class or (scores < 0).any():
        raise LayoutError
    return boxes * _width_height(input_size), scores[:, person_class]


def decode_fastestdet(
    outputs: Outputs, input_size: tuple[int, int], person_class: int
) -> Candidates:
    """FastestDet (Ma, 2022): (1, 5 + classes, h, w), a grid of stride 16.

    A cell holds objectness, the inverse tanh of the center's offset from the cell's corner in
    cells, the logits of width and height as fractions of the input, class scores. The score is
    objectness^0.6 times class score^0.4.
    """
    grid = (input_size[0] // _FASTESTDET_STRIDE, input_size[1] // _FASTESTDET_STRIDE)
    if len(outputs) != 1:
        raise LayoutError
    cells = _single(outputs[0])
    if cells.shape[1:] != grid or len(cells) <= 5 + person_class:
        raise LayoutError
    cells = cells.reshape(len(cells), -1)
    corners, stride = _grid(input_size, (_FASTESTDET_STRIDE,))
    centers = (np.tanh(cells[1:3].T) + corners) * stride
    sizes = expit(cells[3:5].T) * np.array(input_size[::-1], np.float32)
    return _xyxy(centers, sizes), cells[0] ** 0.6 * cells[5 + person_class] ** 0.4


def decode_detr(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """RT-DETR, D-FINE and others of the family: (1, n, classes) logits and (1, n, 4).

    Boxes are center x, y, width, height as fractions of the input. The score is the sigmoid of the
    logit, as the focal loss trains it.
    """
    boxes, logits = _boxes_and_logits(outputs)
    if logits.shape[1] in (_COCO_IDS, _COCO_IDS_AND_NOTHING):
        raise LayoutError
    return _queries(boxes, logits, input_size, person_class)


def decode_detr91(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """RF-DETR, Deformable DETR: as `decode_detr`, with 91 classes, COCO's category ids."""
    boxes, logits = _boxes_and_logits(outputs)
    if logits.shape[1] != _COCO_IDS:
        raise LayoutError
    return _queries(boxes, logits, input_size, person_class)


def decode_rtdetr(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """RT-DETR and D-FINE as exported by their authors: (1, n), (1, n, 4) and (1, n).

    These are labels, boxes and scores. Boxes are x1, y1, x2, y2 in input pixels, because
    `orig_target_sizes` is the size of the input (see `onnx_engines`). Of labels and scores, the
    labels are the integers.
    """
    del input_size
    bboxes = [output[0] for output in outputs if output.ndim == 3 and len(output) == 1]
    columns = [output[0] for output in outputs if output.ndim == 2 and len(output) == 1]
    if len(bboxes) != 1 or len(columns) != 2 or len(outputs) != 3:
        raise LayoutError
    if any(bboxes[0].shape != (len(column), 4) for column in columns):
        raise LayoutError
    labels, scores = sorted(columns, key=lambda column: bool((column != np.round(column)).any()))
    return bboxes[0], np.where(labels == person_class, scores, 0)


def decode_picodet(outputs: Outputs, input_size: tuple[int, int], person_class: int) -> Candidates:
    """PicoDet and PP-YOLOE as exported without NMS: (1, n, 4) and (1, classes, n).

    Boxes are x1, y1, x2, y2 in input pixels.
    """
    del input_size
    arrays = [_single(output) for output in outputs]
    if len(arrays) != 2 or any(array.ndim != 2 for array in arrays):
        raise LayoutError
    bboxes, scores = sorted(arrays, key=lambda array: array.shape[1] != 4)
    if bboxes.shape != (scores.shape[1], 4) or len(scores) <= person_class:
        raise LayoutError
    return bboxes, scores[person_class]


def decode_picodet_raw(
    outputs: Outputs, input_size: tuple[int, int], person_class: int
) -> Candidates:
    """PicoDet (Yu et al., 2021) as exported without postprocessing: its heads.

    For each of the strides 8, 16, 32, 64: (1, cells, classes) scores, and (1, cells, 32) logits of
    the distances from the cell's center to left, top, right, bottom, 8 bins each (Li et al., 2020).
    """
    arrays = [_single(output) for output in outputs]
    if len(arrays) != 2 * len(_PICODET_STRIDES) or any(array.ndim != 2 for array in arrays):
        raise LayoutError
    bboxes, scores = [], []
    for stride in _PICODET_STRIDES:
        height, width = (-(-edge // stride) * stride for edge in input_size)
        corners, _ = _grid((height, width), (stride,))
        heads = [array for array in arrays if len(array) == len(corners)]
        heads.sort(key=lambda head: head.shape[1] == 4 * _PICODET_BINS)
        if len(heads) != 2 or heads[1].shape[1] != 4 * _PICODET_BINS:
            raise LayoutError
        if heads[0].shape[1] <= person_class:
            raise LayoutError
        bins = softmax(heads[1].reshape(-1, 4, _PICODET_BINS), -1)
        distances = bins @ np.arange(_PICODET_BINS, dtype=np.float32)
        offsets = distances * np.array([-1, -1, 1, 1], np.float32)
        bboxes.append((np.tile(corners + 0.5, 2) + offsets) * stride)
        scores.append(heads[0][:, person_class])
    return np.concatenate(bboxes), np.concatenate(scores)


def decode_picodet_nms(
    outputs: Outputs, input_size: tuple[int, int], person_class: int
) -> Candidates:
    """PaddleDetection's exports with NMS inside: (n, 6) and the number of rows.

    A row holds class, score, x1, y1, x2, y2 in input pixels, because `scale_factor` is 1 (see
    `onnx_engines`).
    """
    del input_size
    rows = [output for output in outputs if output.ndim == 2 and output.shape[1] == 6]
    counts = [output for output in outputs if output.size == 1]
    if len(rows) != 1 or len(counts) != 1 or len(outputs) != 2:
        raise LayoutError
    (rows,) = rows
    return rows[:, 2:], np.where(rows[:, 0] == person_class, rows[:, 1], 0)


DECODERS: dict[str, Decoder] = {
    "yolox": decode_yolox,
    "yolov5": decode_yolov5,
    "yolov8": decode_yolov8,
    "yolov10": decode_yolov10,
    "ssd": decode_ssd,
    "fastestdet": decode_fastestdet,
    "detr": decode_detr,
    "detr91": decode_detr91,
    "rtdetr": decode_rtdetr,
    "picodet": decode_picodet,
    "picodet_raw": decode_picodet_raw,
    "picodet_nms": decode_picodet_nms,
}


def fitting_layouts(
    outputs: Outputs, input_size: tuple[int, int], person_class: int = 0
) -> list[str]:
    """The layouts that match the outputs."""
    return [name for name in DECODERS if fits(name, outputs, input_size, person_class)]


def fits(layout: str, outputs: Outputs, input_size: tuple[int, int], person_class: int = 0) -> bool:
    """Whether the outputs match this layout."""
    try:
        with np.errstate(all="ignore"):
            DECODERS[layout](outputs, input_size, person_class)
    except LayoutError:
        return False
    return True


def _single(output: np.ndarray) -> np.ndarray:
    """The output without its batch axis."""
    return output[0] if output.ndim > 2 and output.shape[0] == 1 else output


def _table(outputs: Outputs, counts: Container[int], columns: int) -> Float[np.ndarray, "n c"]:
    """The first output whose number of rows is in `counts` and that has enough columns.

    Raises:
      LayoutError: there is no such output.
    """
    for output in map(_single, outputs):
        if output.ndim == 2 and len(output) in counts and output.shape[1] >= columns:
            return output
    raise LayoutError


def _boxes_and_logits(
    outputs: Outputs,
) -> tuple[Float[np.ndarray, "n 4"], Float[np.ndarray, "n classes"]]:
    """The two outputs of a DETR; others, as masks, have more axes.

    Raises:
      LayoutError: there are no such outputs.
    """
    arrays = [output[0] for output in outputs if output.ndim == 3 and len(output) == 1]
    if len(arrays) != 2:
        raise LayoutError
    # With four classes, the boxes are the ones without negative values.
    boxes, logits = sorted(arrays, key=lambda a: (a.shape[1] != 4, bool((a < 0).any())))
    if boxes.shape != (len(logits), 4) or (logits >= 0).all():
        raise LayoutError
    return boxes, logits


def _queries(
    boxes: Float[np.ndarray, "n 4"],
    logits: Float[np.ndarray, "n classes"],
    input_size: tuple[int, int],
    person_class: int,
) -> Candidates:
    if logits.shape[1] <= person_class:
        raise LayoutError
    bboxes = _xyxy(boxes[:, :2], boxes[:, 2:]) * _width_height(input_size)
    return bboxes, expit(logits[:, person_class])


def _width_height(input_size: tuple[int, int]) -> Float[np.ndarray, " 4"]:
    """The factors that turn fractions of the input, x, y, x, y, into its pixels."""
    height, width = input_size
    return np.array([width, height] * 2, np.float32)


def _grids(
    input_size: tuple[int, int],
) -> list[tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 1"]]]:
    return [_grid(input_size, strides) for strides in _STRIDES]


def _grid(
    input_size: tuple[int, int], strides: Sequence[int]
) -> tuple[Float[np.ndarray, "n 2"], Float[np.ndarray, "n 1"]]:
    """The (x, y) of every cell's corner in cells, and its stride in pixels."""
    corners, stride = [], []
    for step in strides:
        y, x = np.mgrid[: input_size[0] // step, : input_size[1] // step]
        corners.append(np.stack([x.ravel(), y.ravel()], -1))
        stride.append(np.full((x.size, 1), step))
    return np.concatenate(corners).astype(np.float32), np.concatenate(stride).astype(np.float32)


def _xyxy(
    centers: Float[np.ndarray, "n 2"], sizes: Float[np.ndarray, "n 2"]
) -> Float[np.ndarray, "n 4"]:
    return np.concatenate([centers - sizes / 2, centers + sizes / 2], -1)
