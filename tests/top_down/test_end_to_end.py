"""From images to poses in one function, compared with detector and pose network in turn."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from one_program import compiled

from rmpe_jax.codecs.boxes import PRIOR, BoxCodec
from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.detectors.letterbox import fit_image
from rmpe_jax.detectors.points import PointDetector
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.ops.padding import GRAY
from rmpe_jax.pose_nms import PoseNmsParams
from rmpe_jax.skeletons import COCO
from rmpe_jax.top_down import end_to_end
from rmpe_jax.top_down.end_to_end import make_end_to_end
from rmpe_jax.top_down.estimation import BoxBatch, make_estimate_poses

NORMAL = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
BOXES = BoxCodec((64, 64), 4, **NORMAL)
POSES = HeatmapCodec("mse", (32, 24), (8, 6), 1.0, False, "argmax", **NORMAL)
CROP = CropSpec((32, 24))
SIZES = ((96, 128), (64, 40))


class BrightPeople(nn.Module):
    """A person of 16x16 pixels around each cell; brighter cells score higher."""

    @nn.compact
    def __call__(self, x, train=False):
        light = nn.avg_pool(x.mean(-1, keepdims=True), (4, 4), (4, 4))
        sides = jnp.full((*light.shape[:3], 4), np.log(0.5))
        return jnp.concatenate([20 * light - 14 - PRIOR, sides], -1)


class BrightJoints(nn.Module):
    """All joints at the brightest position."""

    @nn.compact
    def __call__(self, x, train=False):
        light = nn.avg_pool(x.mean(-1, keepdims=True), (4, 4), (4, 4))
        return jnp.repeat(light, COCO.num_keypoints, -1)


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 100, (*size, 3), np.uint8) for size in SIZES]
    images[0][40:48, 24:32], images[0][64:72, 96:104] = 255, 235
    images[1][20:24, 12:16] = 245
    return images


def stack_pixels(images):
    """Pixels and sizes as `crop_people` takes them."""
    pixels = np.zeros((len(images), max(image.size // 3 for image in images), 3), np.uint8)
    for row, image in zip(pixels, images, strict=True):
        row[: image.size // 3] = image.reshape(-1, 3)
    return pixels, np.array([image.shape[:2] for image in images], np.int32)


def test_canvases_are_letterboxes(images):
    canvases, affines = compiled(end_to_end._canvases, 2)(*stack_pixels(images), (64, 64))
    for image, canvas, affine in zip(images, canvases, affines, strict=True):
        expected, image_from_canvas = fit_image(image, (64, 64), "letterbox", GRAY, average=True)
        np.testing.assert_allclose(canvas, expected, atol=1)
        assert (np.asarray(canvas)[:, 0] == GRAY).any() or (np.asarray(canvas)[0] == GRAY).any()
        np.testing.assert_allclose(affine, image_from_canvas, atol=1e-4)


@pytest.mark.slow
def test_one_function_gives_the_same_as_two(images):
    estimate_poses = make_estimate_poses(BrightJoints(), POSES, COCO, CROP, chunk=8)
    nms = PoseNmsParams.preset("rmpe")
    pixels, sizes = stack_pixels(images)
    detect_and_estimate = make_end_to_end(
        BrightPeople(), BOXES, (64, 64), estimate_poses, max_people=8, score_threshold=0.5
    )
    batch, poses = detect_and_estimate({}, {}, pixels, sizes, nms)

    detector = PointDetector(BrightPeople(), BOXES, {}, (64, 64), 0.5)
    found = [detector(image) for image in images]
    counts = [len(boxes.bboxes) for boxes in found]
    assert counts == [2, 1]
    count = int(batch.count)
    assert count == sum(counts)
    np.testing.assert_array_equal(batch.image_index[:count], np.repeat([0, 1], counts))
    bboxes = np.concatenate([boxes.bboxes for boxes in found])
    np.testing.assert_allclose(batch.bboxes[:count], bboxes, atol=0.1)

    expected = estimate_poses({}, pixels, sizes, BoxBatch(*batch[:3], count), nms)
    np.testing.assert_array_equal(poses.keep, expected.keep)
    np.testing.assert_allclose(poses.keypoints, expected.keypoints, atol=1e-3)
    assert np.asarray(poses.keep).sum() == 3
    kept = np.asarray(poses.keypoints)[:count, 0]
    np.testing.assert_allclose(kept, [(27.5, 43.5), (99.5, 67.5), (13.5, 21.5)], atol=6)


def test_no_people_in_any_image():
    estimate_poses = make_estimate_poses(BrightJoints(), POSES, COCO, CROP, chunk=8)
    detect_and_estimate = make_end_to_end(
        BrightPeople(), BOXES, (64, 64), estimate_poses, max_people=8, score_threshold=0.5
    )
    pixels, sizes = stack_pixels([np.zeros((64, 64, 3), np.uint8), np.zeros((50, 70, 3), np.uint8)])
    batch, poses = detect_and_estimate({}, {}, pixels, sizes, PoseNmsParams.preset("rmpe"))
    assert int(batch.count) == 0
    assert not np.asarray(poses.keep).any()
