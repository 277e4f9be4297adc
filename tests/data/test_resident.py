import logging

import jax.numpy as jnp
import numpy as np
import pytest
from fake_source import FakeSource

from rmpe_jax.data import pipeline
from rmpe_jax.data.augment import Augmentation
from rmpe_jax.data.images import ImageError
from rmpe_jax.data.resident import canvas_spec, load_canvases
from rmpe_jax.data.sources import MixedSource
from rmpe_jax.errors import UserError
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO
from rmpe_jax.top_down.cropping import crop_canvases

CROP = CropSpec((32, 24))
AUGMENTATION = Augmentation(half_body_prob=0.3, rotation_degrees=20.0, scale=0.1)


def stream(source, resident, augmentation=AUGMENTATION):
    return pipeline.train_dataset(
        source,
        skeleton=COCO,
        crop=CROP,
        augmentation=augmentation,
        batch_size=16,
        seed=3,
        resident=resident,
    )


def sample(canvases, canvas, canvas_from_crop, color_gain, size=CROP.input_size):
    arrays = map(jnp.asarray, (canvases, canvas, canvas_from_crop, color_gain))
    return np.asarray(crop_canvases(*arrays, size))


def mixed(*parts, repeats=None):
    return MixedSource(parts, repeats or (1,) * len(parts))


def test_a_canvas_is_half_as_large_again_and_a_third_finer():
    spec = canvas_spec(CropSpec((256, 192), padding=1.2))
    assert spec.input_size == (512, 384)
    assert spec.padding == pytest.approx(1.8)


def test_the_same_crops_are_drawn_as_from_files():
    source = mixed(FakeSource(9), FakeSource(5), repeats=(1, 3))
    resident, canvases = load_canvases(source, CROP)
    assert len(resident) == len(source) == 24
    assert canvases.shape == (14, 64, 48, 3)
    for expected, got in zip(stream(source, False)[:3], stream(resident, True)[:3], strict=True):
        assert set(expected) - set(got) == {"image"}
        for name in set(expected) & set(got):
            np.testing.assert_array_equal(got[name], expected[name], err_msg=name)
            assert got[name].dtype == expected[name].dtype


@pytest.mark.parametrize("gain", [(1.0, 1.0), (0.6, 1.4)])
def test_the_devices_sample_nearly_the_same_pixels(gain):
    augmentation = Augmentation(rotation_degrees=20.0, scale=0.1, color_gain=gain)
    source = mixed(FakeSource(16))
    expected = stream(source, False, augmentation)[0]
    resident, canvases = load_canvases(source, CROP)
    batch = stream(resident, True, augmentation)[0]
    got = sample(canvases, batch["canvas"], batch["canvas_from_crop"], batch["color_gain"])
    # Smooth images; at the border of an image or of the canvas a pixel is black in one of both.
    difference = np.abs(got - expected["image"].astype(np.float32))
    assert np.median(difference) < 1
    assert np.quantile(difference, 0.95) < 8


def test_crops_leave_their_canvas_black():
    canvases = np.full((2, 8, 6, 3), 200, np.uint8)
    canvases[1] = 100
    affine = np.array([[[1, 0, 4], [0, 1, 0]], [[1, 0, 0], [0, 1, -3]]], np.float32)
    gain = np.array([[1, 1, 1], [2, 1, 3]], np.float32)
    got = sample(canvases, np.array([0, 1]), affine, gain, (8, 6))
    assert got.shape == (2, 8, 6, 3)
    got = got.round()
    assert (got[0, :, :2] == 200).all()
    assert (got[0, :, 2:] == 0).all()
    assert (got[1, 3:] == (200, 100, 255)).all()
    assert (got[1, :3] == 0).all()


def test_people_with_unreadable_images_are_left_out_and_named(caplog):
    source = mixed(FakeSource(3, corrupt=(1,)), FakeSource(2))
    with caplog.at_level(logging.WARNING):
        resident, canvases = load_canvases(source, CROP)
    assert len(resident) == 4
    assert len(canvases) == 4
    assert [resident[i]["canvas"] for i in range(4)] == [0, 1, 2, 3]
    assert [resident[i]["person_id"] for i in range(4)] == [1000, 1002, 1000, 1001]
    assert "1.png" in caplog.text
    assert "left out" in caplog.text


def test_strict_and_hopeless_data_are_refused():
    with pytest.raises(ImageError, match="1.png"):
        load_canvases(mixed(FakeSource(3, corrupt=(1,))), CROP, strict=True)
    with pytest.raises(UserError, match="none of the images"):
        load_canvases(mixed(FakeSource(2, corrupt=(0, 1))), CROP)
