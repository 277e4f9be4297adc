"""OKS against pycocotools' computeOks, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools.cocoeval import COCOeval

from rmpe_jax.ops import geometry
from rmpe_jax.ops.oks import oks
from rmpe_jax.skeletons import COCO


def random_people(seed, n, m):
    rng = np.random.default_rng(seed)
    gt = rng.uniform(0, 200, (m, 17, 2))
    visibility = rng.integers(0, 3, (m, 17))
    visibility[rng.uniform(size=m) < 0.3] = 0
    bboxes_xywh = np.concatenate([rng.uniform(0, 100, (m, 2)), rng.uniform(5, 60, (m, 2))], -1)
    near = gt[rng.integers(0, m, n)] + rng.normal(0, 1, (n, 17, 2)) * rng.uniform(1, 40, (n, 1, 1))
    area = 0.6 * bboxes_xywh[:, 2] * bboxes_xywh[:, 3]
    return near, gt, visibility, area, geometry.xyxy_from_xywh(bboxes_xywh)


def coco_oks(keypoints, gt, visibility, area, bboxes):
    """pycocotools' own, in the order given (its sort is stable and all scores are equal)."""
    evaluation = COCOeval(iouType="keypoints")
    evaluation._dts[1, 1] = [
        {"keypoints": np.c_[pose, np.ones(17)].ravel().tolist(), "score": 1} for pose in keypoints
    ]
    evaluation._gts[1, 1] = [
        {"keypoints": np.c_[pose, seen].ravel().tolist(), "area": a, "bbox": box.tolist()}
        for pose, seen, a, box in zip(
            gt, visibility, area, geometry.xywh_from_xyxy(bboxes), strict=True
        )
    ]
    return evaluation.computeOks(1, 1)


@pytest.mark.parametrize("seed", range(5))
def test_equals_pycocotools(seed):
    keypoints, gt, visibility, area, bboxes = random_people(seed, n=12, m=9)
    assert (visibility == 0).all(-1).any()  # the box rule is met
    expected = coco_oks(keypoints, gt, visibility, area, bboxes)
    ours = oks(keypoints, gt, visibility, area, COCO.sigmas, bboxes)
    np.testing.assert_allclose(ours, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("function", [oks, jax.jit(oks)], ids=["eager", "jit"])
def test_jax_equals_numpy(function):
    keypoints, gt, visibility, area, bboxes = random_people(0, n=4, m=6)
    args = (keypoints, gt, visibility, area, COCO.sigmas, bboxes)
    ours = function(*(jnp.asarray(a, jnp.float32) for a in args))
    np.testing.assert_allclose(ours, oks(*args), atol=2e-5)


def test_leading_dimensions_are_free():
    parts = [random_people(seed, n=3, m=4) for seed in range(2)]
    batched = oks(*(np.stack(p) for p in list(zip(*parts, strict=True))[:4]), COCO.sigmas)
    for one, people in zip(batched, parts, strict=True):
        np.testing.assert_allclose(one, oks(*people[:4], COCO.sigmas))


def test_one_joint_by_hand():
    # A wrist (sigma .062, k = .124) 12.4 px away on a person of 100 x 100: exp(-.5 * .01 * 100).
    visibility = np.zeros((1, 17))
    visibility[0, COCO.index("left_wrist")] = 1
    keypoints = np.zeros((1, 17, 2))
    value = oks(
        keypoints + np.array([12.4, 0]), keypoints, visibility, np.array([1e4]), COCO.sigmas
    )
    np.testing.assert_allclose(value, [[np.exp(-0.5)]])


def test_nobody_labeled_without_box_is_zero():
    keypoints, gt, visibility, area, _ = random_people(1, n=2, m=3)
    assert not oks(keypoints, gt, 0 * visibility, area, COCO.sigmas).any()


def test_unlabeled_joints_may_be_anything():
    keypoints, gt, visibility, area, _ = random_people(2, n=3, m=5)
    dirty = np.where(visibility[..., None] > 0, gt, np.nan)
    args = (visibility, area, COCO.sigmas)
    np.testing.assert_array_equal(oks(keypoints, gt, *args), oks(keypoints, dirty, *args))
    gradient = jax.grad(lambda k: oks(k, jnp.asarray(dirty), *map(jnp.asarray, args)).sum())
    assert np.isfinite(jax.jit(gradient)(keypoints)).all()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    scale=st.floats(0.1, 10),
    shift=st.tuples(st.floats(-500, 500), st.floats(-500, 500)),
)
def test_invariant_to_scale_and_shift(seed, scale, shift):
    keypoints, gt, visibility, area, bboxes = random_people(seed, n=3, m=4)
    value = oks(keypoints, gt, visibility, area, COCO.sigmas, bboxes)
    moved = oks(
        keypoints * scale + shift,
        gt * scale + shift,
        visibility,
        area * scale**2,
        COCO.sigmas,
        bboxes * scale + np.tile(shift, 2),
    )
    assert ((value >= 0) & (value <= 1)).all()
    np.testing.assert_allclose(moved, value, atol=1e-7)
