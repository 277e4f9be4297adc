"""Encodes boxes as outputs of each layout, by its formula; the inverse of the decoders."""

import numpy as np

CLASSES = 5


def cells(input_size, strides=(8, 16, 32)):
    """(x, y, stride) of every cell, row by row, one grid after the other."""
    height, width = input_size
    return [(x, y, s) for s in strides for y in range(height // s) for x in range(width // s)]


def encode(layout, bboxes, scores, input_size, person_class=0, strides=(8, 16, 32)):
    """Outputs of a network that found these people, and objects of other classes with high scores.

    Args:
      layout: one of the decoders'.
      bboxes: (n, 4) xyxy pixels of the input; no two centers in one cell of stride 16.
      scores: (n,) of a person.
    """
    write = {"yolox": _yolox, "yolov5": _yolov5, "yolov8": _yolov8}.get(layout)
    if write:
        return [write(bboxes, scores, cells(input_size, strides), person_class)]
    if layout == "yolov10":
        return [_yolov10(bboxes, scores, person_class)]
    if layout == "ssd":
        return _ssd(bboxes, scores, input_size, person_class)
    return [_fastestdet(bboxes, scores, input_size, person_class)]


def _center(bbox):
    return (bbox[0] + bbox[2]) / 2, (bbox[1] + bbox[3]) / 2, bbox[2] - bbox[0], bbox[3] - bbox[1]


def _row_of(all_cells, x, y, number):
    """A cell that contains the point; the grids take turns, so that each is used."""
    holders = [i for i, (cx, cy, s) in enumerate(all_cells) if (x // s, y // s) == (cx, cy)]
    return holders[number % len(holders)]


def _yolox(bboxes, scores, all_cells, person_class):
    out = np.zeros((1, len(all_cells), 5 + CLASSES), np.float32)
    out[..., 5:] = 0.9  # all classes, but no object
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        x, y, w, h = _center(bbox)
        row = _row_of(all_cells, x, y, number)
        cx, cy, s = all_cells[row]
        out[0, row, :4] = x / s - cx, y / s - cy, np.log(w / s), np.log(h / s)
        out[0, row, 4] = 0.8
        out[0, row, 5 + person_class] = score / 0.8
    return out


def _yolov5(bboxes, scores, all_cells, person_class):
    out = np.zeros((1, 3 * len(all_cells), 5 + CLASSES), np.float32)
    out[..., 5:] = 0.9
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        row = 5 + 11 * number
        out[0, row, :4] = _center(bbox)
        out[0, row, 4] = 0.8
        out[0, row, 5 + person_class] = score / 0.8
    return out


def _yolov8(bboxes, scores, all_cells, person_class):
    out = np.zeros((1, 4 + CLASSES, len(all_cells)), np.float32)
    out[0, :4] = 20
    out[0, 4:] = 0.9
    out[0, 4 + person_class] = 0
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        out[0, :4, 5 + 11 * number] = _center(bbox)
        out[0, 4 + person_class, 5 + 11 * number] = score
    return out


def _yolov10(bboxes, scores, person_class):
    out = np.zeros((1, 20, 6), np.float32)
    out[0, :] = 3, 3, 30, 30, 0.9, person_class + 1
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        out[0, 2 * number] = *bbox, score, person_class
    return out


def _ssd(bboxes, scores, input_size, person_class):
    height, width = input_size
    boxes = np.tile(np.float32([0.1, 0.1, 0.4, 0.4]), (1, 30, 1))
    classes = np.full((1, 30, CLASSES), 0.9, np.float32)
    classes[..., person_class] = 0
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        boxes[0, 3 * number] = np.asarray(bbox) / [width, height, width, height]
        classes[0, 3 * number, person_class] = score
    return [classes, boxes]


def _fastestdet(bboxes, scores, input_size, person_class):
    height, width = input_size
    out = np.zeros((1, 5 + CLASSES, height // 16, width // 16), np.float32)
    out[0, 5:] = 0.9
    for bbox, score in zip(bboxes, scores, strict=True):
        x, y, w, h = _center(bbox)
        cx, cy = int(x // 16), int(y // 16)
        cell = out[0, :, cy, cx]
        cell[0] = 0.8
        cell[1:3] = np.arctanh(x / 16 - cx), np.arctanh(y / 16 - cy)
        cell[3:5] = [np.log(f / (1 - f)) for f in (w / width, h / height)]
        cell[5 + person_class] = (score / 0.8**0.6) ** (1 / 0.4)
    return out
