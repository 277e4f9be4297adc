"""The codec's frames and the meaning of outputs under each loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from one_program import compiled

from rmpe_jax.codecs.heatmap import DECODERS, LOSSES, HeatmapCodec
from rmpe_jax.ops import heatmaps

K = 5
# Of a codec: equal ones share a program.
to_heatmap = compiled(HeatmapCodec.to_heatmap, 0)
loss_of = compiled(HeatmapCodec.compute_loss, 0)
loss_and_gradient = compiled(
    lambda codec, *arguments: jax.value_and_grad(codec.compute_loss)(*arguments), 0
)
decoded = compiled(lambda codec, outputs: codec.keypoints(codec.maps(outputs)), 0)


def _targets(codec, keypoints, sigma):
    people = keypoints.shape[:-1]
    points = codec.to_heatmap(keypoints)
    size, rounded = codec.heatmap_size, codec.integer_center
    return heatmaps.encode(points, jnp.ones(people), size, sigma, rounded)[0]


targets_of = compiled(_targets, 0, 2)


def ones(*shape):
    return np.ones(shape, np.float32)


def make_codec(loss: str = "mse", decode: str = "dark", size=(64, 48), stride: int = 4, **changes):
    options = {
        "loss": loss,
        "input_size": size,
        "heatmap_size": (size[0] // stride, size[1] // stride),
        "sigma": 2.0,
        "integer_center": False,
        "decode": decode,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }
    return HeatmapCodec(**(options | changes))


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def inner_keypoints(rng, size, people: int = 3) -> np.ndarray:
    """Crop pixels, five heatmap pixels of stride 4 from the border."""
    low, high = (20, 20), (size[1] - 21, size[0] - 21)
    return rng.uniform(low, high, (people, K, 2)).astype(np.float32)


def test_inputs_are_normalized_rgb(rng):
    image = rng.integers(0, 256, (2, 64, 48, 3), np.uint8)
    expected = (image / 255 - np.array([0.485, 0.456, 0.406])) / np.array([0.229, 0.224, 0.225])
    inputs = make_codec().inputs(jnp.asarray(image))
    np.testing.assert_allclose(inputs, expected, rtol=1e-4, atol=1e-5)


def test_crop_and_heatmap_cover_the_same_area():
    codec = make_codec()
    edges = np.float32([[[-0.5, -0.5], [47.5, 63.5], [1.5, 1.5]]])
    expected = [[[-0.5, -0.5], [11.5, 15.5], [0.0, 0.0]]]
    np.testing.assert_allclose(to_heatmap(codec, edges), expected, atol=1e-6)


def test_alignment_at_the_first_pixels_is_a_division(rng):
    """AlphaPose's frames: heatmap x is crop x / 4, and back; mirrored maps lie 3/4 aside."""
    codec = make_codec("mse", "integral", alignment="first_pixel")
    keypoints = inner_keypoints(rng, (64, 48))
    np.testing.assert_allclose(to_heatmap(codec, keypoints), keypoints / 4, rtol=1e-6)
    targets = targets_of(codec, keypoints, 0.7)
    np.testing.assert_allclose(decoded(codec, targets)[0], keypoints, atol=0.02)
    assert codec.flip_shift == 0.75
    assert make_codec().flip_shift == 0


def test_alignment_of_unbiased_data_processing(rng):
    """First and last pixels of crop and heatmap coincide, so mirroring needs no shift."""
    codec = make_codec("mse", "dark_udp", alignment="udp")
    corners = np.float32([[[0, 0], [47, 63], [47, 0]]])
    expected = [[[0, 0], [11, 15], [11, 0]]]
    np.testing.assert_allclose(to_heatmap(codec, corners), expected, atol=1e-5)
    keypoints = inner_keypoints(rng, (64, 48))
    targets = targets_of(codec, keypoints, codec.sigma)
    # Derivatives of the logarithm by neighbors are exact for a Gaussian, and clipped tails are not.
    np.testing.assert_allclose(decoded(codec, targets)[0], keypoints, atol=0.2)
    assert codec.flip_shift == 0


@pytest.mark.parametrize(("size", "stride"), [((64, 48), 4), ((128, 128), 4), ((48, 96), 2)])
@pytest.mark.parametrize(("decode", "apart"), [("dark", 0.1), ("quarter", 1.9), ("argmax", 3.0)])
def test_targets_decode_to_the_keypoints(rng, size, stride, decode, apart):
    """In crop pixels; argmax is off by half a heatmap pixel in x and in y at most, quarter less."""
    codec = make_codec("mse", decode, size, stride)
    keypoints = inner_keypoints(rng, size)
    targets = targets_of(codec, keypoints, codec.sigma)
    assert float(loss_of(codec, targets, keypoints, ones(3, K))) == pytest.approx(0, abs=1e-12)
    found, scores = decoded(codec, targets)
    assert np.linalg.norm(found - keypoints, axis=-1).max() < apart * stride / 4
    assert (scores > 0.8).all()
    assert (scores <= 1).all()


def logits_at(codec, loss: str, keypoints) -> np.ndarray:
    """What a network trained with `loss` puts out when it is sure."""
    maps = targets_of(codec, keypoints, codec.sigma)
    if loss == "symmetric_integral":
        return scipy.special.logit(np.clip(maps, 1e-6, 1 - 1e-6))
    return maps if loss == "mse" else np.log(maps + np.float32(1e-12))


@pytest.mark.parametrize("loss", LOSSES)
def test_the_loss_is_least_at_the_right_place(rng, loss):
    decode = "integral" if loss == "symmetric_integral" else "dark"
    codec = make_codec(loss, decode)
    keypoints, weights = inner_keypoints(rng, (64, 48)), ones(3, K)
    least = float(loss_of(codec, logits_at(codec, loss, keypoints), keypoints, weights))
    for shift in ([2, 0], [-2, 0], [0, 2], [0, -2], [6, 6]):
        moved = logits_at(codec, loss, keypoints + np.array(shift, np.float32))
        assert float(loss_of(codec, moved, keypoints, weights)) > least, shift
    found, _ = decoded(codec, logits_at(codec, loss, keypoints))
    np.testing.assert_allclose(found, keypoints, atol=0.2)


def test_cross_entropy_ends_at_the_entropy_of_its_targets(rng):
    codec = make_codec("cross_entropy")
    keypoints, weights = inner_keypoints(rng, (64, 48)), ones(3, K)
    targets = np.exp(logits_at(codec, "cross_entropy", keypoints), dtype=np.float64)
    p = targets / targets.sum((1, 2), keepdims=True)
    entropy = -(p * np.log(p)).sum((1, 2)).mean()
    best = logits_at(codec, "cross_entropy", keypoints)
    least, gradient = loss_and_gradient(codec, best, keypoints, weights)
    assert float(least) == pytest.approx(entropy, rel=1e-4)
    np.testing.assert_allclose(gradient, 0, atol=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_stacks_add_up_and_the_last_one_is_read(rng, loss):
    codec = make_codec(loss)
    keypoints = inner_keypoints(rng, (64, 48), people=1)
    weights = ones(1, K)
    stacks = [rng.normal(size=(1, 16, 12, K)).astype(np.float32) for _ in range(3)]
    each = [float(loss_of(codec, stack, keypoints, weights)) for stack in stacks]
    assert float(loss_of(codec, stacks, keypoints, weights)) == pytest.approx(sum(each), rel=1e-5)
    maps_of = compiled(codec.maps)
    np.testing.assert_array_equal(maps_of(stacks), maps_of(stacks[-1]))


@pytest.mark.parametrize("loss", LOSSES)
def test_joints_that_are_not_annotated_do_not_count(rng, loss):
    codec = make_codec(loss)
    keypoints = inner_keypoints(rng, (64, 48))
    weights = np.ones((3, K), np.float32)
    weights[:, 1] = 0
    outputs = rng.normal(size=(3, 16, 12, K)).astype(np.float32)
    elsewhere = keypoints.copy()
    elsewhere[:, 1] = np.nan
    (expected, _), (found, gradient) = (
        loss_and_gradient(codec, outputs, points, weights) for points in (keypoints, elsewhere)
    )
    assert float(found) == pytest.approx(float(expected), rel=1e-6)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[..., 1], 0)
    assert (np.abs(gradient[..., 0]).sum((1, 2)) > 0).all()


@pytest.mark.parametrize("loss", LOSSES)
def test_joints_far_outside_do_not_count(rng, loss):
    codec = make_codec(loss)
    keypoints = inner_keypoints(rng, (64, 48))
    keypoints[:, 2] = 500, -500
    outputs = rng.normal(size=(3, 16, 12, K)).astype(np.float32)
    _, gradient = loss_and_gradient(codec, outputs, keypoints, ones(3, K))
    np.testing.assert_array_equal(gradient[..., 2], 0)


def test_integer_centers_reach_the_targets(rng):
    """AlphaPose's targets are 1 at a pixel; the loss of that map is 0 for no other codec."""
    keypoints = inner_keypoints(rng, (64, 48))
    rounded = make_codec(integer_center=True)
    maps = targets_of(rounded, keypoints, 2.0)
    assert maps.max() == 1
    assert float(loss_of(rounded, maps, keypoints, ones(3, K))) == 0
    assert float(loss_of(make_codec(), maps, keypoints, ones(3, K))) > 0


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("decode", DECODERS)
def test_scores_lie_between_0_and_1_whatever_the_network_says(rng, loss, decode):
    codec = make_codec(loss, decode)
    for scale in (0.01, 1.0, 100.0):
        outputs = (rng.normal(size=(2, 16, 12, K)) * scale).astype(np.float32)
        points, scores = decoded(codec, outputs)
        assert np.isfinite(points).all()
        assert ((scores >= 0) & (scores <= 1)).all()
        assert ((points >= -2) & (points <= np.array([50, 66]))).all()


def test_the_score_of_a_softmax_tells_sure_from_unsure():
    """The peak of a sharp map and of a Gaussian differ much; the probability nearby does not."""
    codec = make_codec("cross_entropy")
    keypoints = np.full((1, K, 2), 25.5, np.float32)
    sure = logits_at(codec, "cross_entropy", keypoints)

    def score(outputs):
        return decoded(codec, outputs)[1]

    assert (score(sure) > 0.55).all()
    assert (score(20 * sure) > 0.95).all()
    assert (score(np.zeros_like(sure)) < 0.2).all()
