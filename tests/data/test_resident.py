import logging

import numpy as np
import pytest
from fake_source import FakeSource
from one_program import compiled

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
crop = compiled(crop_canvases, 6)
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


NAMES = ("canvas", "canvas_from_crop", "color_gain", "region", "coarseness")


def sample(canvases, batch, size=CROP.input_size):
    return crop(canvases, *(batch[name] for name in NAMES), size)


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


@pytest.mark.parametrize(
    "options",
    [{}, {"color_gain": (0.6, 1.4)}, {"cut_prob": 1.0}, {"max_coarseness": 3.0}],
    ids=["plain", "gain", "cut", "coarse"],
)
def test_the_devices_sample_nearly_the_same_pixels(options):
    augmentation = Augmentation(rotation_degrees=20.0, scale=0.1, **options)
    source = mixed(FakeSource(16))
    expected = stream(source, False, augmentation)[0]
    resident, canvases = load_canvases(source, CROP)
    batch = stream(resident, True, augmentation)[0]
    got = sample(canvases, batch)
    # Smooth images; at the border of an image or of the canvas a pixel is black in one of both.
    difference = np.abs(got - expected["image"].astype(np.float32))
    # Blocks of averages lie differently.
    factor = 6 if "max_coarseness" in options else 1
    assert np.median(difference) < factor
    assert np.quantile(difference, 0.95) < 8 * factor


def test_crops_leave_their_canvas_black():
    canvases = np.full((2, 16, 8, 3), 200, np.uint8)
    canvases[1] = 100
    affine = np.array([[[1, 0, 4], [0, 1, 0]], [[1, 0, 0], [0, 1, -3]]], np.float32)
    batch = {
        "canvas": np.array([0, 1]),
        "canvas_from_crop": affine,
        "color_gain": np.array([[1, 1, 1], [2, 1, 3]], np.float32),
        "region": np.tile(np.array([-0.5, -0.5, 7.5, 15.5], np.float32), (2, 1)),
        "coarseness": np.ones(2, np.float32),
    }
    got = sample(canvases, batch, (16, 8))
    assert got.shape == (2, 16, 8, 3)
    got = got.round()
    assert (got[0, :, :4] == 200).all()
    assert (got[0, :, 4:] == 0).all()
    assert (got[1, 3:] == (200, 100, 255)).all()
    assert (got[1, :3] == 0).all()


def test_a_cut_canvas_is_black_beyond_the_cut_and_a_coarse_one_is_averaged():
    canvases = np.zeros((1, 16, 16, 3), np.uint8)
    canvases[:, ::2] = 200  # stripes
    batch = {
        "canvas": np.zeros(2, np.int32),
        "canvas_from_crop": np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1)),
        "color_gain": np.ones((2, 3), np.float32),
        "region": np.array([[-0.5, -0.5, 9.5, 15.5], [-0.5, -0.5, 15.5, 15.5]], np.float32),
        "coarseness": np.array([1, 2], np.float32),
    }
    got = sample(canvases, batch, (16, 16)).round()
    assert (got[0, ::2, :10] == 200).all()
    assert (got[0, :, 10:] == 0).all()
    assert (got[1] == 100).all()


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
    with pytest.raises(ImageError, match=r"1\.png"):
        load_canvases(mixed(FakeSource(3, corrupt=(1,))), CROP, strict=True)
    with pytest.raises(UserError, match="none of the images"):
        load_canvases(mixed(FakeSource(2, corrupt=(0, 1))), CROP)
