"""Views that are smaller than the crop: the frames of STN, SDTN, branches and decoding."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from one_program import compiled
from test_rmpe import (
    Pooling,
    TinySppe,
    apply,
    apply_in_training,
    decode,
    encode,
    noise,
    part,
    sdtn,
    stn,
    with_head,
)

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.codecs.view import ViewCodec, ViewHeatmaps
from rmpe_jax.config import default_config, model_spec, parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.models import rmpe
from rmpe_jax.models.localization import SmallLocalization
from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.ops.differences import probe_thetas
from rmpe_jax.ops.spatial_transformer import affine_sample

CROP, VIEW = (96, 48), (64, 32)
WINDOW = np.s_[:, 16:80, 8:40]  # of the crop
IDENTITY = np.eye(2, 3, dtype=np.float32)[None]


class FixedTheta(nn.Module):
    theta: tuple[tuple[float, float, float], ...]

    def __call__(self, x, train=False):
        return jnp.tile(jnp.asarray(self.theta), (len(x), 1, 1))


def moved(dx, dy):
    """Theta of a view that is (dx, dy) pixels away from the middle."""
    dx, dy = 2 * dx / (CROP[1] - 1), 2 * dy / (CROP[0] - 1)
    return np.array([[[1, 0, dx], [0, 1, dy]]], np.float32)


def test_the_identity_is_the_central_window_to_the_last_bit():
    x, maps = noise(1, *CROP, 3), noise(1, 16, 8, 2)
    np.testing.assert_array_equal(stn(x, IDENTITY, VIEW), x[WINDOW])
    placed = np.pad(maps, ((0, 0), (4, 4), (2, 2), (0, 0)))
    np.testing.assert_array_equal(sdtn(maps, IDENTITY, CROP, view_size=VIEW), placed)
    background = maps.min((1, 2), keepdims=True)
    placed = np.pad(maps - background, ((0, 0), (4, 4), (2, 2), (0, 0))) + background
    np.testing.assert_allclose(sdtn(maps, IDENTITY, CROP, True, VIEW), placed, atol=1e-6)


def test_a_view_of_the_crops_size_is_that_of_the_paper():
    x, maps, theta = noise(1, *CROP, 3), noise(1, 24, 12, 2), moved(2.3, -4.1)
    np.testing.assert_array_equal(stn(x, theta, CROP), stn(x, theta))
    same = sdtn(maps, theta, CROP, view_size=CROP)
    np.testing.assert_array_equal(same, sdtn(maps, theta, CROP))


def test_a_known_translation_and_scale():
    x = noise(1, *CROP, 3)
    np.testing.assert_allclose(stn(x, moved(5, -3), VIEW), x[:, 13:77, 13:45], atol=1e-4)
    columns = np.broadcast_to(np.arange(CROP[1], dtype=np.float32)[:, None], (1, *CROP, 1))
    half = np.array([[[0.5, 0, 0], [0, 0.5, 0]]], np.float32)
    expected = 23.5 + 0.5 * (np.arange(VIEW[1]) - 15.5)
    np.testing.assert_allclose(stn(columns, half, VIEW)[0, 7, :, 0], expected, atol=1e-5)


def test_theta_comes_after_the_map_of_the_window():
    """In normalized coordinates W is a scale by (view - 1) / (crop - 1)."""
    x, theta = noise(1, *CROP, 3), np.float32([[0.8, 0.05, 0.12], [-0.04, 0.9, -0.1]])
    scale = np.float32([(VIEW[1] - 1) / (CROP[1] - 1), (VIEW[0] - 1) / (CROP[0] - 1), 1])
    expected = compiled(affine_sample, 2)(x[0], theta * scale, VIEW)
    np.testing.assert_allclose(stn(x, theta[None], VIEW)[0], expected, atol=1e-3)


@pytest.mark.parametrize("logits", [False, True])
def test_a_joint_outside_the_window_is_found_in_the_crop(logits):
    """The view goes where the joint is; STN, a perfect estimator, SDTN."""
    points = np.float32([[[36, 84], [25, 50], [30, 60]]])
    x, _ = encode(points, np.ones((1, 3)), CROP, 4.0)
    theta = ((0.95, 0.05, 0.4), (-0.04, 1.05, 0.25))
    net = RMPE(Pooling(), FixedTheta(theta), logits=logits, view_size=VIEW)
    found = jax.jit(net.apply)({}, x)
    assert found.shape == (1, 24, 12, 3)
    decoded, _ = decode(found, "dark", 1.0)
    np.testing.assert_allclose(decoded, points / 4 - 3 / 8, atol=0.1)
    still = RMPE(Pooling(), FixedTheta(((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))), view_size=VIEW)
    assert compiled(still.apply)({}, x)[..., 0].max() < 0.7 * x[..., 0].max()


def test_points_of_the_view_are_those_of_the_crop():
    """A smooth blob, decoded before and after the SDTN."""
    theta = np.float32([[[0.95, 0.05, 0.3], [-0.04, 1.05, 0.2]]])
    points = np.float32([[[4.2, 9.7], [3.1, 5.4]]])
    maps, _ = encode(points, np.ones((1, 2)), (16, 8), 1.0)
    options = {"integer_center": False, "decode": "dark", "mean": (0.0,) * 3, "std": (1.0,) * 3}
    in_crop = HeatmapCodec("mse", CROP, (24, 12), 1.0, **options)
    in_view = ViewCodec("mse", CROP, (24, 12), 1.0, **options, view_size=VIEW)
    view_points = compiled(
        lambda maps, theta: in_view.keypoints(in_view.maps(ViewHeatmaps(maps, theta)))
    )
    found, _ = view_points(maps, theta)
    expected, _ = compiled(in_crop.keypoints)(sdtn(maps, theta, CROP, view_size=VIEW))
    np.testing.assert_allclose(found, expected, atol=0.5)
    by_hand, _ = view_points(maps, IDENTITY)
    np.testing.assert_allclose(by_hand, 4 * points + 1.5 + np.array([8, 16]), atol=0.2)


@pytest.mark.parametrize("has_branch", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_branches_and_probes_see_views(has_branch):
    """Heatmaps of the parallel branch are those of views, all others those of crops."""
    net = RMPE(
        TinySppe(),
        SmallLocalization(widths=(4, 8)),
        TinySppe() if has_branch else None,
        difference_step=0.2,
        view_size=VIEW,
    )
    x = noise(2, *CROP, 3)
    variables = with_head(jax.jit(net.init)(jax.random.key(0), x))
    found, _ = apply_in_training(net, variables, x)
    assert found.heatmaps.shape == (2, 24, 12, 2)
    theta = compiled(probe_thetas, 1)(found.theta, 0.2)[:, 3]
    guide = part(variables, "parallel_sppe" if has_branch else "sppe")
    expected = apply(TinySppe(), guide, stn(x, theta, VIEW))
    if has_branch:
        assert found.parallel_heatmaps.shape == (2, 16, 8, 2)
    else:
        expected = sdtn(expected, theta, CROP, view_size=VIEW)
    np.testing.assert_allclose(found.probe_heatmaps[:, 3], expected, atol=1e-5)


def test_what_does_not_fit_gets_one_line():
    config = default_config()
    config.model.name, config.sstn.enabled, config.sstn.context = "tinypose_xs", True, 1.5
    config.model.input_size = (60, 48)
    with pytest.raises(UserError, match=r"^config\.sstn\.context=1\.5: .*40x32.*multiples of"):
        model_spec(parse_config(config)).build()
    config.model.input_size, config.sstn.context, config.sstn.decode = (36, 36), 1.125, "view"
    says = r"8 heatmap pixels for 32 of 36 crop pixels leave no whole margin; .* of 8$"
    with pytest.raises(UserError, match=rf"^config\.sstn\.context=1\.125: {says}"):
        model_spec(parse_config(config)).build()
    with pytest.raises(UserError, match=says):
        rmpe.sdtn(jnp.zeros((1, 8, 8, 1)), jnp.asarray(IDENTITY), (36, 36), view_size=(32, 32))
