"""Similarity of poses: golden values, and what it must not depend on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.pose_nms import PoseNmsParams
from rmpe_jax.pose_nms.similarity import (
    body_size,
    joint_weights,
    num_matches,
    part_sizes,
    similarity,
)
from rmpe_jax.skeletons import SKELETONS, get_skeleton

BOX = np.float32([[0, 0, 60, 100], [0, 0, 60, 100]])  # a reference distance is 10 pixels

jitted = jax.jit(similarity)


def moved(offset, k=16, score=0.9, joints=None):
    """A pose, and it again with its first `joints` joints moved right by `offset` pixels."""
    pose = np.stack([np.arange(k) * 200.0, np.zeros(k)], -1)
    other = pose.copy()
    other[:joints, 0] += offset
    return np.float32([pose, other]), np.full((2, k), score, np.float32)


def value(preset, *arguments):
    return float(jitted(*arguments, BOX, PoseNmsParams.preset(preset))[0, 1])


@pytest.mark.parametrize(
    ("offset", "expected"), [(0, 49.28), (10.0, 36.6), (10.001, 20.6), (1e5, 0)]
)
def test_the_release(offset, expected):
    np.testing.assert_allclose(value("rmpe", *moved(offset)), expected, atol=0.05)


@pytest.mark.parametrize(("offset", "expected"), [(1.0, 28.5), (1.01, 19.7)])
def test_alphapose(offset, expected):
    np.testing.assert_allclose(value("alphapose", *moved(offset, k=17)), expected, atol=0.05)


def test_the_paper_by_hand():
    # 5 px on a box 60 wide: outside its region, whose half width is 3 px; half a reference away.
    np.testing.assert_allclose(
        value("paper", *moved(5.0)), 16 * 2.08 * np.exp(-0.25 / 2.08), rtol=1e-5
    )
    keypoints, scores = moved(5.0)
    upright = keypoints[..., ::-1]  # 5 px down: on the edge, the half height is 5 px
    np.testing.assert_allclose(
        value("paper", upright, scores), 16 * (1 + 2.08 * np.exp(-0.25 / 2.08)), rtol=1e-5
    )


def test_unsure_joints_do_not_match():
    identical = value("rmpe", *moved(0, score=0.0))
    np.testing.assert_allclose(identical, 16 * 2.08, rtol=1e-5)
    half_sure = value("rmpe", *moved(0, score=0.01))
    np.testing.assert_allclose(half_sure, 16 * (np.tanh(1) ** 2 + 2.08), rtol=1e-5)


def test_matches_within_the_smaller_of_a_reference_and_seven_pixels():
    variant = PoseNmsParams.preset("alphapose").variant
    weights = joint_weights(17, variant).matches
    count = jax.jit(functools.partial(num_matches, variant=variant, weights=weights))
    assert count(moved(7.0, k=17, joints=4)[0], BOX).tolist() == [[17, 17], [17, 17]]
    assert count(moved(7.01, k=17, joints=4)[0], BOX)[0, 1] == 13
    assert count(moved(6.0, k=17, joints=4)[0], BOX / 2)[0, 1] == 13


@pytest.mark.parametrize("name", [*SKELETONS, "unnamed_60", "unnamed_150"])
def test_sizes_of_body_parts(name):
    """The numbers of joints that presets of AlphaPose and of the release are meant for."""
    skeleton = get_skeleton(name)
    k = skeleton.num_keypoints
    assert body_size(skeleton) == min(17, k)
    default = PoseNmsParams.default(skeleton).variant
    assert default.joints == ("all" if k <= 21 else "body")
    counted = np.count_nonzero(joint_weights(k, default, skeleton).matches)
    assert counted == (k if k <= 21 else 17)
    if k > 68 + 42:
        assert part_sizes(skeleton) == (k - 68 - 42, 68, 42)
    else:
        with pytest.raises(UserError, match=f"skeleton '{name}' does not have"):
            part_sizes(skeleton)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 999),
    scale=st.sampled_from([0.25, 2.0, 8.0]),
    preset=st.sampled_from(["rmpe", "paper"]),
)
def test_invariant_to_scale(seed, scale, preset):
    rng = np.random.default_rng(seed)
    keypoints = np.round(rng.normal(100, 20, (1, 17, 2)) + rng.normal(0, 4, (2, 17, 2)))
    scores = rng.uniform(0, 1, (2, 17)).astype(np.float32)
    params = PoseNmsParams.preset(preset)
    values = [
        jitted(np.float32(keypoints * s), scores, BOX * np.float32(s), params) for s in (1.0, scale)
    ]
    np.testing.assert_allclose(*values, rtol=1e-5)


@pytest.mark.parametrize("preset", ["paper", "rmpe", "alphapose"])
def test_gradients_are_finite_where_joints_coincide(preset):
    keypoints, scores = moved(0.0, k=3)

    def total(keypoints, params):
        return similarity(keypoints, jnp.asarray(scores), jnp.asarray(BOX), params).sum()

    gradient = jax.jit(jax.grad(total, (0, 1)))
    gradients = gradient(jnp.asarray(keypoints), PoseNmsParams.preset(preset))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
