"""Targets and boxes against NumPy loops written from the papers' formulas."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from one_program import compiled

from rmpe_jax.ops import box_maps, geometry
from rmpe_jax.ops.box_maps import GAUSSIAN_FRACTION

SIZE, STRIDE = (12, 16), 4
encode_all = compiled(box_maps.encode, 2, 3)
to_bboxes = compiled(box_maps.to_bboxes, 1)


def encode(bboxes, weights):
    """Of one image; the first axis of the result is dropped."""
    bboxes = np.asarray(bboxes, np.float32).reshape(1, -1, 4)
    targets = encode_all(bboxes, np.asarray(weights, np.float32)[None], SIZE, STRIDE)
    return box_maps.BoxTargets(*(values[0] for values in targets))


def reference(bboxes, weights):
    """TTFNet's targets, cell by cell."""
    height, width = SIZE
    heat, centers = np.zeros(SIZE), np.zeros(SIZE)
    owner, values = np.full(SIZE, -1), np.zeros(SIZE)
    smallest = np.full(SIZE, np.inf)
    areas = [(x2 - x1) * (y2 - y1) for x1, y1, x2, y2 in bboxes]
    for person, ((x1, y1, x2, y2), weight) in enumerate(zip(bboxes, weights, strict=True)):
        if weight == 0:
            continue
        w, h = (x2 - x1) / STRIDE, (y2 - y1) / STRIDE
        cx = min(int((x1 + x2) / 2 / STRIDE), width - 1)
        cy = min(int((y1 + y2) / 2 / STRIDE), height - 1)
        centers[cy, cx] = max(centers[cy, cx], weight)
        for i in range(height):
            for j in range(width):
                dx, dy = j - cx, i - cy
                if (abs(dx) > GAUSSIAN_FRACTION * w / 2 and dx) or (
                    abs(dy) > GAUSSIAN_FRACTION * h / 2 and dy
                ):
                    continue
                value = math.exp(
                    -(dx**2) / (2 * (GAUSSIAN_FRACTION * w / 6) ** 2)
                    - dy**2 / (2 * (GAUSSIAN_FRACTION * h / 6) ** 2)
                )
                heat[i, j] = max(heat[i, j], value)
                if value > 0 and areas[person] < smallest[i, j]:
                    smallest[i, j], owner[i, j], values[i, j] = areas[person], person, value
    bbox_weights = np.zeros(SIZE)
    for person, weight in enumerate(weights):
        mine = owner == person
        if mine.any():
            scale = weight * max(math.log(areas[person]), 1) / values[mine].sum()
            bbox_weights[mine] = values[mine] * scale
    return heat, centers, owner, bbox_weights


def random_people(seed: int, count: int):
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, (50, 34), (count, 2))
    bboxes = np.concatenate([corner, corner + rng.uniform(4, (14, 14), (count, 2))], -1)
    return bboxes.astype(np.float32), rng.uniform(0.3, 1, count).astype(np.float32)


@pytest.mark.parametrize("seed", range(5))
def test_targets_are_those_of_the_formula(seed):
    bboxes, weights = random_people(seed, 5)
    weights[2] = 0
    heat, centers, owner, bbox_weights = reference(bboxes, weights)
    targets = encode(bboxes, weights)
    np.testing.assert_allclose(targets.heat, heat, atol=1e-5)
    np.testing.assert_allclose(targets.centers, centers, atol=1e-6)
    np.testing.assert_allclose(targets.bbox_weights, bbox_weights, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(targets.bboxes[owner >= 0], bboxes[owner[owner >= 0]])


def test_nobody_gives_empty_targets():
    targets = encode(np.zeros((3, 4)), np.zeros(3))
    assert not targets.heat.any()
    assert not targets.centers.any()
    assert not targets.bbox_weights.any()


def test_padding_changes_nothing():
    bboxes, weights = random_people(0, 3)
    padded = encode(np.concatenate([bboxes, bboxes[::-1]]), np.concatenate([weights, np.zeros(3)]))
    for found, alone in zip(padded, encode(bboxes, weights), strict=True):
        np.testing.assert_allclose(found, alone, rtol=1e-5)


def test_a_box_about_the_last_pixel_has_its_center_inside():
    targets = encode([[60, 40, 68, 56]], [1])
    assert targets.centers[11, 15] == 1


def test_cells_inside():
    inside = box_maps.cells_inside(
        jnp.array([[[4.0, 0.0, 12.0, 6.1], [0.0, 0.0, 0.0, 0.0]]]), (3, 4), 4
    )
    expected = np.zeros((3, 4), bool)
    expected[0:2, 1:3] = True
    expected[1] &= 6 < 6.1
    np.testing.assert_array_equal(inside[0], expected)


side = st.floats(0, 60, width=32)


@settings(max_examples=30)
@given(x=side, y=side, width=st.floats(1, 60, width=32), height=st.floats(1, 60, width=32))
def test_boxes_come_back_from_the_maps_that_tell_them(x, y, width, height):
    """Round trip: targets to the outputs of a perfect network, and those to boxes."""
    bbox = np.clip(np.array([x, y, x + width, y + height], np.float32), 0, (64, 48, 64, 48))
    targets = encode(bbox, [1])
    i, j = np.argwhere(targets.centers == 1)[0]
    point = np.array([j + 0.5, i + 0.5]) * STRIDE
    # A box narrower than a cell may not contain the cell's center, but distances are positive.
    reach = np.concatenate([point - bbox[:2], bbox[2:] - point])
    if reach.min() < 0.2:
        return
    outputs = np.zeros((*SIZE, 4), np.float32)
    outputs[i, j] = np.log(reach / (4 * STRIDE))
    predicted = to_bboxes(outputs, STRIDE)
    np.testing.assert_allclose(predicted[i, j], bbox, atol=1e-3)


def test_peaks_are_local_maxima_best_first():
    heat = np.zeros((1, 6, 6), np.float32)
    heat[0, 1, 1], heat[0, 1, 2], heat[0, 4, 5], heat[0, 5, 0] = 0.9, 0.8, 0.95, 0.3
    scores, index = compiled(box_maps.peaks, 1)(heat, 4)
    np.testing.assert_allclose(scores[0], [0.95, 0.9, 0.3, 0])
    assert index[0, :3].tolist() == [4 * 6 + 5, 1 * 6 + 1, 5 * 6]


def test_a_box_is_averaged_with_like_ones_around_it():
    rng = np.random.default_rng(0)
    height, width = 7, 9
    bboxes = np.tile(np.float32([10, 10, 30, 50]), (height, width, 1))
    bboxes += rng.normal(0, 2, bboxes.shape).astype(np.float32)
    bboxes[2, 3] += 60  # somebody else's
    heat = rng.uniform(0.1, 1, (height, width)).astype(np.float32)
    cells = [(3, 4), (0, 0), (6, 8), (2, 3)]
    index = np.array([i * width + j for i, j in cells])
    found = compiled(box_maps.vote_boxes)(bboxes, heat, index)
    for (i, j), box in zip(cells, found, strict=True):
        rows, columns = slice(max(i - 2, 0), i + 3), slice(max(j - 2, 0), j + 3)
        around, votes = bboxes[rows, columns].reshape(-1, 4), heat[rows, columns].ravel()
        like = np.asarray(geometry.box_iou(bboxes[i, j][None], around))[0] > 0.5
        expected = np.average(around[like], axis=0, weights=votes[like])
        np.testing.assert_allclose(box, expected, rtol=1e-4)
    np.testing.assert_allclose(found[3], bboxes[2, 3], rtol=1e-5)


def test_a_vote_among_boxes_without_area_or_heat_is_the_cells_own():
    bboxes = np.zeros((3, 3, 4), np.float32)
    bboxes[1, 1] = 4
    found = compiled(box_maps.vote_boxes)(bboxes, np.zeros((3, 3), np.float32), np.array([4]))
    np.testing.assert_allclose(found, [[4, 4, 4, 4]])
