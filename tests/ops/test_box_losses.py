"""Losses of detection against NumPy and, for GIoU, the definition on integer boxes."""

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_program import compiled

from rmpe_jax.ops import box_losses
from rmpe_jax.ops.box_maps import BoxTargets

focal_and_gradient = compiled(jax.value_and_grad(box_losses.focal))
giou_and_gradient = compiled(jax.value_and_grad(box_losses.giou_loss))
giou = compiled(box_losses.giou)


def targets_of(heat, centers, bboxes=None, weights=None) -> BoxTargets:
    shape = heat.shape
    bboxes = np.zeros((*shape, 4)) if bboxes is None else bboxes
    weights = np.zeros(shape) if weights is None else weights
    return BoxTargets(*(np.asarray(v, np.float32) for v in (heat, centers, bboxes, weights)))


def random_case(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(2, 5, 6)).astype(np.float32)
    heat = rng.uniform(0, 0.9, logits.shape)
    centers = np.zeros_like(heat)
    for place, weight in (((0, 1, 2), 1.0), ((0, 3, 3), 0.5), ((1, 0, 0), 0.7)):
        heat[place], centers[place] = 1, weight
    counts = (rng.random(heat.shape) < 0.8).astype(np.float32)
    return logits, heat, centers, counts


def test_focal_loss_is_the_formula():
    logits, heat, centers, counts = random_case()
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    total = 0.0
    for at in np.ndindex(p.shape):
        if centers[at]:
            total -= centers[at] * (1 - p[at]) ** 2 * np.log(p[at])
        else:
            total -= counts[at] * (1 - heat[at]) ** 4 * p[at] ** 2 * np.log(1 - p[at])
    found = jax.jit(box_losses.focal)(logits, targets_of(heat, centers), counts)
    assert float(found) == pytest.approx(total / centers.sum(), rel=1e-5)


def test_ignored_cells_have_no_gradient_unless_a_person_is_there():
    logits, heat, centers, _ = random_case()
    counts = np.zeros_like(logits)
    _, grad = focal_and_gradient(logits, targets_of(heat, centers), counts)
    np.testing.assert_array_equal(grad != 0, centers > 0)


def test_images_without_people_teach_background_and_stay_finite():
    logits = np.full((1, 4, 4), -2, np.float32)
    nobody = targets_of(np.zeros((1, 4, 4)), np.zeros((1, 4, 4)))
    value, grad = focal_and_gradient(logits, nobody, np.ones_like(logits))
    assert value > 0
    assert (grad > 0).all()
    value, grad = giou_and_gradient(np.ones((1, 4, 4, 4), np.float32), nobody)
    assert value == 0
    assert not grad.any()


def test_extreme_logits_stay_finite():
    logits = np.array([[[-1e4, 1e4], [1e4, -1e4]]], np.float32)
    heat = np.array([[[1.0, 0.0], [1.0, 0.0]]])
    value, grad = focal_and_gradient(logits, targets_of(heat, heat), np.ones_like(logits))
    assert np.isfinite(value)
    assert np.isfinite(grad).all()


corner = st.integers(0, 12)
boxes = st.tuples(corner, corner, st.integers(1, 8), st.integers(1, 8)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@given(a=boxes, b=boxes)
def test_giou_counts_unit_squares(a, b):
    def squares(box):
        return {(x, y) for x in range(box[0], box[2]) for y in range(box[1], box[3])}

    hull = (min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3]))
    union = len(squares(a) | squares(b))
    around = len(squares(hull))
    expected = len(squares(a) & squares(b)) / union - (around - union) / around
    found = giou(np.array(a, np.float32), np.array(b, np.float32))
    assert float(found) == pytest.approx(expected, abs=1e-5)


def test_giou_loss_is_the_weighted_mean():
    bboxes = np.array([[[[0, 0, 4, 4], [0, 0, 2, 2]]]], np.float32)
    wanted = np.array([[[[0, 0, 4, 4], [2, 2, 4, 4]]]], np.float32)
    zeros = np.zeros((1, 1, 2))
    targets = targets_of(zeros, zeros, wanted, np.array([[[3.0, 1.0]]]))
    # 1 - GIoU: 0 for the first; 1 - (0 - 8 / 16) for the second.
    assert float(giou_and_gradient(bboxes, targets)[0]) == pytest.approx(1.5 / 4)
