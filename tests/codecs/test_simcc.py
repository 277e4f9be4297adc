import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_program import compiled

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.codecs.pose import PoseCodec
from rmpe_jax.codecs.simcc import SimccCodec, SimccMaps
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO
from rmpe_jax.top_down.prediction import make_predict

SIZE = (64, 32)
CODEC = SimccCodec(SIZE, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
K = 5
encode = compiled(CODEC.encode)
keypoints_of = compiled(CODEC.keypoints)
loss_and_gradient = compiled(jax.value_and_grad(CODEC.compute_loss))


@pytest.fixture
def keypoints(rng):
    """Joints on the bins, well inside the crop."""
    low, high = (16, 24), (48, 104)
    return (rng.integers(low, high, (3, K, 2)) / 2).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def perfect(keypoints):
    return encode(keypoints, np.ones(keypoints.shape[:2], np.float32))[0]


def reference_target(coordinate, side):
    bins, sigma = np.arange(2 * side), np.sqrt(2 * side / 16)
    return np.exp(-((bins - 2 * coordinate) ** 2) / (2 * sigma**2))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def test_both_codecs_are_pose_codecs():
    heatmaps = HeatmapCodec("mse", SIZE, (16, 8), 2.0, False, "dark", CODEC.mean, CODEC.std)
    assert isinstance(CODEC, PoseCodec)
    assert isinstance(heatmaps, PoseCodec)


def test_inputs_are_normalized():
    image = jnp.full((1, 2, 2, 3), 255, jnp.uint8)
    np.testing.assert_allclose(CODEC.inputs(image)[0, 0, 0], [2.5, 2.0, 1.75], rtol=1e-6)


def test_targets_are_gaussians_over_bins(rng):
    keypoints = rng.uniform(2, 30, (2, K, 2)).astype(np.float32)
    targets, weights = encode(keypoints, np.ones((2, K), np.float32))
    assert targets.x.shape == (2, K, 64)
    assert targets.y.shape == (2, K, 128)
    np.testing.assert_array_equal(weights, 1)
    for i, k in np.ndindex(2, K):
        x, y = keypoints[i, k]
        np.testing.assert_allclose(targets.x[i, k], reference_target(x, 32), atol=1e-5)
        np.testing.assert_allclose(targets.y[i, k], reference_target(y, 64), atol=1e-5)


@pytest.mark.parametrize(("side", "sigma"), [(192, 4.9), (256, 5.66), (288, 6.0), (384, 6.93)])
def test_sigmas_are_those_of_the_published_configs(side, sigma):
    codec = SimccCodec((side, side), CODEC.mean, CODEC.std)
    center = np.full((1, 1, 2), side / 2, np.float32)
    x = compiled(codec.encode)(center, np.ones((1, 1), np.float32))[0].x[0, 0]
    np.testing.assert_allclose(np.sqrt(-0.5 / np.log(x[side + 1])), sigma, atol=5e-3)


def test_joints_far_outside_have_no_weight():
    three_sigma = 3 * np.sqrt(32 / 8) / 2  # crop pixels
    x = np.array([-three_sigma - 0.1, -three_sigma + 0.1, 31.5 + three_sigma - 0.1, 40])
    points = np.stack([x, np.full(4, 9)], -1)[None].astype(np.float32)
    weights = encode(points, np.ones((1, 4), np.float32))[1]
    np.testing.assert_array_equal(weights, [[0, 1, 1, 0]])


def test_the_loss_is_the_formula(rng, keypoints):
    outputs = SimccMaps(
        *(rng.standard_normal((3, K, bins)).astype(np.float32) for bins in (64, 128))
    )
    weights = rng.uniform(0.5, 1, (3, K)).astype(np.float32)
    weights[0, 1] = 0
    expected = 0.0
    for i, k in np.ndindex(3, K):
        for output, coordinate, side in zip(outputs, keypoints[i, k], SIZE[::-1], strict=True):
            t = softmax(10 * reference_target(coordinate, side))
            p = softmax(10 * output[i, k].astype(float))
            expected += weights[i, k] * (t * np.log(t / p)).sum() / len(t)
    keypoints[0, 1] = np.nan  # not annotated
    loss, gradient = loss_and_gradient(outputs, keypoints, weights)
    np.testing.assert_allclose(loss, expected / (3 * K), rtol=1e-5)
    arguments = jax.tree.map(jnp.asarray, (outputs, keypoints, weights))
    np.testing.assert_allclose(CODEC.compute_loss(*arguments), loss, rtol=1e-5)
    assert all(np.isfinite(leaf).all() for leaf in gradient)
    assert not gradient.x[0, 1].any()
    assert gradient.x[0, 0].any()


def test_perfect_outputs_have_no_loss_and_constants_do_not_matter(keypoints):
    maps = perfect(keypoints)
    weights = np.ones(keypoints.shape[:2], np.float32)
    assert loss_and_gradient(maps, keypoints, weights)[0] < 1e-6
    assert loss_and_gradient(SimccMaps(maps.x + 3, maps.y), keypoints, weights)[0] < 1e-5


def test_decoding_gives_the_keypoints_back(keypoints):
    found, scores = keypoints_of(CODEC.maps(perfect(keypoints)))
    np.testing.assert_array_equal(found, keypoints)
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_scores_are_the_lower_maximum_from_0_to_1(keypoints):
    x, y = perfect(keypoints[:1])
    x = np.float32([0.3, 2, 0.8, -1, 5])[:, None] * x
    y = np.float32([2, 0.4, 0.9, 1, 3])[:, None] * y
    _, scores = keypoints_of(SimccMaps(x, y))
    np.testing.assert_allclose(scores[0, [0, 1, 2, 4]], [0.3, 0.4, 0.8, 1], atol=1e-5)
    assert 0 <= scores[0, 3] < 1e-3


def test_mirrored_perfect_maps_merge_without_bias(keypoints):
    """Pixel x is pixel 31 - x of the mirrored crop, in which left and right are exchanged."""
    flip_indices = np.array([0, 2, 1, 4, 3])
    mirrored = (keypoints * np.float32([-1, 1]) + np.float32([31, 0]))[:, flip_indices]
    maps = perfect(keypoints)
    merged = compiled(CODEC.merge_flipped)(maps, perfect(mirrored), flip_indices)
    np.testing.assert_allclose(merged.x[..., :-1], maps.x[..., :-1], atol=1e-5)
    np.testing.assert_allclose(merged.y, maps.y, atol=1e-5)
    np.testing.assert_array_equal(keypoints_of(merged)[0], keypoints)


def test_merging_is_the_mean_and_the_last_bin_takes_the_nearest(rng):
    maps, flipped = (
        SimccMaps(*(rng.standard_normal((1, 2, n)).astype(np.float32) for n in (64, 128)))
        for _ in range(2)
    )
    merged = compiled(CODEC.merge_flipped)(maps, flipped, np.array([1, 0]))
    ours, theirs = maps.x[0, 0], flipped.x[0, 1]
    for i in (0, 1, 40, 62):
        np.testing.assert_allclose(merged.x[0, 0, i], (ours[i] + theirs[62 - i]) / 2, rtol=1e-6)
    np.testing.assert_allclose(merged.x[0, 0, 63], (ours[63] + theirs[0]) / 2, rtol=1e-6)
    np.testing.assert_allclose(merged.y[0, 0], (maps.y[0, 0] + flipped.y[0, 1]) / 2, rtol=1e-6)


def test_a_shift_of_heatmaps_is_refused(keypoints):
    maps = jax.tree.map(jnp.asarray, perfect(keypoints))
    with pytest.raises(UserError, match="flip_shift: is for heatmaps"):
        CODEC.merge_flipped(maps, maps, np.arange(K), whole_pixel=True)


class Brightest:
    """All joints at the brightest pixel, as perfect maps."""

    def apply(self, variables, x):
        b, _, width, _ = x.shape
        index = x.mean(-1).reshape(b, -1).argmax(-1)
        point = jnp.stack([index % width, index // width], -1).astype(jnp.float32)
        points = jnp.repeat(point[:, None], COCO.num_keypoints, 1)
        return CODEC.encode(points, jnp.ones(points.shape[:2]))[0]


@pytest.mark.parametrize("flip_test", [False, True])
def test_prediction_finds_a_bright_pixel(flip_test):
    crops = np.zeros((2, *SIZE, 3), np.uint8)
    crops[0, 40, 3], crops[1, 7, 30] = 255, 200
    image_from_crop = np.tile(np.float32([[2, 0, 10], [0, 3, 20]]), (2, 1, 1))
    predict = make_predict(Brightest(), CODEC, COCO, flip_test=flip_test)
    found, scores = predict({}, crops, image_from_crop)
    np.testing.assert_array_equal(found, np.tile([[[16, 140]], [[70, 41]]], (1, 17, 1)))
    np.testing.assert_allclose(scores, 1, atol=1e-6)


def test_a_shift_in_the_flip_test_is_refused():
    predict = make_predict(Brightest(), CODEC, COCO, flip_test=True, flip_shift=True)
    with pytest.raises(UserError, match="flip_shift"):
        predict({}, np.zeros((1, *SIZE, 3), np.uint8), jnp.zeros((1, 2, 3)))
