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
    if layout in ("detr", "detr91"):
        classes = 91 if layout == "detr91" else CLASSES
        return _detr(bboxes, scores, input_size, person_class, classes)
    if layout == "rtdetr":
        return _rtdetr(bboxes, scores, person_class)
    if layout == "picodet":
        return _picodet(bboxes, scores, cells(input_size, (8, 16, 32, 64)), person_class)
    if layout == "picodet_raw":
        return _picodet_raw(bboxes, scores, input_size, person_class)
    if layout == "picodet_nms":
        return _picodet_nms(bboxes, scores, person_class)
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


def _detr(bboxes, scores, input_size, person_class, classes):
    height, width = input_size
    boxes = np.tile(np.float32([0.5, 0.5, 0.4, 0.4]), (1, 30, 1))
    logits = np.full((1, 30, classes), 2.2, np.float32)
    logits[..., person_class] = -200
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        boxes[0, 3 * number] = np.divide(_center(bbox), [width, height, width, height])
        logits[0, 3 * number, person_class] = np.log(score / (1 - score))
    return [logits, boxes]


def _rtdetr(bboxes, scores, person_class):
    labels = np.full((1, 30), person_class + 1, np.float32)
    boxes = np.tile(np.float32([3, 3, 30, 30]), (1, 30, 1))
    confidences = np.full((1, 30), 0.9, np.float32)
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        labels[0, 2 * number] = person_class
        boxes[0, 2 * number] = bbox
        confidences[0, 2 * number] = score
    return [labels, boxes, confidences]


def _picodet(bboxes, scores, all_cells, person_class):
    boxes = np.tile(np.float32([3, 3, 30, 30]), (1, len(all_cells), 1))
    classes = np.full((1, CLASSES, len(all_cells)), 0.9, np.float32)
    classes[0, person_class] = 0
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        boxes[0, 5 + 11 * number] = bbox
        classes[0, person_class, 5 + 11 * number] = score
    return [boxes, classes]


def _picodet_nms(bboxes, scores, person_class):
    rows = np.tile(np.float32([person_class + 1, 0.9, 3, 3, 30, 30]), (20, 1))
    for number, (bbox, score) in enumerate(zip(bboxes, scores, strict=True)):
        rows[2 * number] = person_class, score, *bbox
    return [rows, np.float32([len(rows)])]


def _picodet_raw(bboxes, scores, input_size, person_class):
    """Distances of whole strides are one bin each; others are shared by two."""
    height, width = input_size
    classes, distances = [], []
    for stride in (8, 16, 32, 64):
        rows, columns = int(np.ceil(height / stride)), int(np.ceil(width / stride))
        classes.append(np.full((1, rows * columns, CLASSES), 0.9, np.float32))
        classes[-1][..., person_class] = 0
        distances.append(np.zeros((1, rows * columns, 32), np.float32))
        for bbox, score in zip(bboxes, scores, strict=True):
            x, y, w, h = _center(bbox)
            # The finest grid whose seven bins reach the sides of the box from any of its cells.
            if next(s for s in (8, 16, 32, 64) if max(w, h) / 2 + s <= 7 * s) != stride:
                continue
            cell = int(y // stride) * columns + int(x // stride)
            center = (np.float32([int(x // stride), int(y // stride)]) + 0.5) * stride
            sides = np.concatenate([center - bbox[:2], bbox[2:] - center]) / stride
            low = sides.astype(int)
            share = np.full((4, 8), 1e-12)
            share[np.arange(4), low] = 1 - (sides - low)
            share[np.arange(4), np.minimum(low + 1, 7)] += sides - low
            distances[-1][0, cell] = np.log(share + 1e-12).ravel()
            classes[-1][0, cell, person_class] = score
    return classes + distances
