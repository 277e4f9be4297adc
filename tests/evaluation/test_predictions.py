"""Boxes to poses with networks whose output is known: keypoints are at bright spots."""

import dataclasses
import pathlib

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
import pytest
from fake_processes import FakeProcesses
from one_program import compiled

from rmpe_jax.codecs.heatmap import HeatmapCodec
from rmpe_jax.data import eval_pipeline
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import DatasetBoxes
from rmpe_jax.evaluation.predictions import PosePredictions, predict_dataset
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO, MPII
from rmpe_jax.top_down.prediction import make_predict

SIZE = (64, 48)


class Pool(nn.Module):
    """A heatmap is the image's brightness, a mean over 4x4 pixels; `weights` (17,) scale it."""

    weights: tuple[float, ...] = (1.0,) * 17
    shift: int = 0

    @nn.compact
    def __call__(self, x, train=False):
        maps = nn.avg_pool(x.mean(-1, keepdims=True), (4, 4), (4, 4))
        return jnp.roll(maps, self.shift, 2) * jnp.array(self.weights)


CODEC = HeatmapCodec(
    loss="mse",
    input_size=SIZE,
    heatmap_size=(16, 12),
    sigma=2.0,
    integer_center=False,
    decode="dark",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
)
IDENTITY = np.eye(2, 3, dtype=np.float32)


def spot(size: tuple[int, int], x: float, y: float, sigma: float = 8.0) -> np.ndarray:
    """A black image with a bright Gaussian spot, uint8 RGB."""
    ys, xs = np.mgrid[: size[0], : size[1]]
    bell = 250 * np.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * sigma**2))
    return np.repeat(bell.round().astype(np.uint8)[..., None], 3, -1)


def affines(count: int) -> np.ndarray:
    return np.tile(IDENTITY, (count, 1, 1))


def test_keypoints_come_back_in_image_pixels():
    crops = np.stack([spot(SIZE, 20.3, 30.8), spot(SIZE, 31.0, 25.2)])
    image_from_crop = np.array([[[2, 0, 100], [0, 2, 50]], [[0, -1, 7], [1, 0, 9]]], np.float32)
    predict = make_predict(Pool(), CODEC, COCO)
    keypoints, scores = predict({}, crops, image_from_crop)
    assert keypoints.shape == (2, 17, 2)
    expected = np.array([[140.6, 111.6], [7 - 25.2, 31.0 + 9]])
    assert np.abs(keypoints - expected[:, None]).max() < 0.5
    assert ((scores > 0.8) & (scores <= 1)).all()


@pytest.mark.parametrize("k", range(3))
def test_the_flip_test_changes_nothing_for_a_symmetric_network(k):
    """Left and right joints have the same weight, so mirroring commutes with the network."""
    weights = np.random.default_rng(k).uniform(0.3, 1, 17)
    weights = (weights + weights[COCO.flip_indices]) / 2
    network = Pool(tuple(weights))
    crops = np.stack([spot(SIZE, 14.6, 40.2), spot(SIZE, 30.1, 22.7)])
    plain, flipped = (
        make_predict(network, CODEC, COCO, flip_test=flip)({}, crops, affines(2))
        for flip in (False, True)
    )
    np.testing.assert_allclose(flipped[0], plain[0], atol=1e-3)
    np.testing.assert_allclose(flipped[1], plain[1], atol=1e-5)


def test_the_flip_test_by_its_formula():
    """For a network that shifts its maps and weights the joints unequally."""
    weights = np.linspace(0.2, 1, 17)
    network = Pool(tuple(weights), shift=1)
    crop = spot(SIZE, 20.0, 30.0)[None]

    def maps(image):
        pooled = (image / 255).mean(-1).reshape(16, 4, 12, 4).mean((1, 3))
        return np.roll(pooled, 1, 1)[..., None] * weights

    back = maps(crop[0, :, ::-1])[:, ::-1][..., COCO.flip_indices]
    shifted = np.concatenate([back[:, :1], back[:, :-1]], 1)
    for shift, second in ((False, back), (True, shifted)):
        mean = (maps(crop[0]) + second) / 2
        expected, scores = compiled(CODEC.keypoints)(mean[None].astype(np.float32))
        predict = make_predict(network, CODEC, COCO, flip_test=True, flip_shift=shift)
        found = predict({}, crop, affines(1))
        np.testing.assert_allclose(found[0], expected, atol=1e-3)
        np.testing.assert_allclose(found[1], scores, atol=1e-5)


def test_networks_aligned_at_the_first_pixel_are_mirrored_with_a_shift():
    """Heatmap x of a spot at crop x is x / 4; mirrored maps lie 3/4 of a heatmap pixel aside.

    AlphaPose moves them by a whole pixel, so the mean of both passes is half a crop pixel off.
    """
    codec = dataclasses.replace(CODEC, alignment="first_pixel", decode="integral")

    class Spot(nn.Module):
        @nn.compact
        def __call__(self, x):
            place = (x.mean(-1).sum(1) * jnp.arange(x.shape[2])).sum(-1) / x.mean(-1).sum((1, 2))
            offset = jnp.arange(x.shape[2] // 4) - place[:, None, None, None] / 4
            bell = jnp.exp(-(offset**2) / 2)[:, 0, 0][:, None, :, None]
            return jnp.tile(bell, (1, x.shape[1] // 4, 1, 17))

    crop = spot(SIZE, 20.0, 30.0, sigma=3.0)[None]
    alone, twice, by_a_pixel = (
        make_predict(Spot(), codec, COCO, flip_test=flip, flip_shift=shift)({}, crop, affines(1))[
            0
        ][0, 0, 0]
        for flip, shift in ((False, False), (True, False), (True, True))
    )
    assert abs(alone - 20) < 0.1
    assert abs(twice - 20) < 0.1
    assert abs(by_a_pixel - 20.5) < 0.1


SPOTS = [(60.0, 40.0), (110.0, 70.0), (45.0, 90.0), (90.0, 50.0)]


@pytest.fixture
def dataset(tmp_path) -> PoseDataset:
    """Four images with one spot each; the third file is not an image."""
    records = []
    for number, (x, y) in enumerate(SPOTS):
        path = pathlib.Path(tmp_path / f"{number}.png")
        path.write_bytes(cv2.imencode(".png", spot((120, 160), x, y, 6.0))[1].tobytes())
        records.append(
            ImageRecord(
                image_id=number,
                path=path,
                keypoints=np.zeros((0, 17, 2), np.float32),
                visibility=np.zeros((0, 17), np.uint8),
                bboxes=np.zeros((0, 4), np.float32),
                area=np.zeros(0, np.float32),
                iscrowd=np.zeros(0, bool),
                head_sizes=np.zeros(0, np.float32),
                person_ids=np.zeros(0, int),
            )
        )
    records[2].path.write_bytes(b"no image")
    return PoseDataset("spots", COCO, tuple(records), tmp_path / "none.json")


def boxes(image_index: list[int]) -> DatasetBoxes:
    """Boxes about the spots, each a little different."""
    around = np.array([SPOTS[i] for i in image_index], np.float32).reshape(-1, 2)
    wobble = np.random.default_rng(0).uniform(0.8, 1.2, (len(around), 4))
    sides = np.array([-25, -30, 25, 30]) * wobble
    bboxes = (np.tile(around, 2) + sides).astype(np.float32)
    count = len(around)
    return DatasetBoxes(
        np.array(image_index, int), bboxes, np.ones(count, np.float32), np.full(count, -1)
    )


@pytest.mark.parametrize(("batch_size", "num_threads"), [(3, 1), (16, 2)])
def test_poses_of_all_boxes_in_their_order(dataset, batch_size, num_threads):
    image_index = [0, 0, 1, 2, 2, 3, 3, 3]
    predict = make_predict(Pool(), CODEC, COCO)
    found = predict_dataset(
        predict,
        {},
        dataset,
        boxes(image_index),
        COCO,
        CropSpec(SIZE),
        batch_size=batch_size,
        num_threads=num_threads,
    )
    keypoints, scores = found.keypoints, found.keypoint_scores
    assert keypoints.shape == (8, 17, 2)
    unreadable = np.array(image_index) == 2
    assert np.isnan(keypoints[unreadable]).all()
    assert (scores[unreadable] == 0).all()
    expected = np.array([SPOTS[i] for i in image_index])[:, None]
    assert np.abs(keypoints - expected)[~unreadable].max() < 1.0
    assert (scores[~unreadable] > 0.5).all()
    assert predict._cache_size() == 1  # the last batch is filled up to the size of the others


@pytest.mark.parametrize("count", [2, 5])
def test_processes_share_the_images(dataset, count, monkeypatch, caplog):
    """The poses are those of one process, each image is decoded once, and reported once."""
    image_index = [0, 0, 1, 2, 2, 3, 3, 3]
    predict = make_predict(Pool(), CODEC, COCO)

    def poses():
        return predict_dataset(
            predict, {}, dataset, boxes(image_index), COCO, CropSpec(SIZE), batch_size=2
        )

    alone = poses()
    alone_says = caplog.messages
    caplog.clear()
    decoded = []
    read = eval_pipeline.read_image
    monkeypatch.setattr(eval_pipeline, "read_image", lambda p: decoded.append(p) or read(p))
    for found in FakeProcesses(count, monkeypatch.setattr).run(poses):
        np.testing.assert_array_equal(found.keypoints, alone.keypoints)
        np.testing.assert_array_equal(found.keypoint_scores, alone.keypoint_scores)
    assert sorted(decoded) == [record.path for record in dataset.images]
    assert caplog.messages == alone_says
    assert alone_says[0].startswith("1 of 4 images cannot be read")


def test_no_boxes_no_poses(dataset):
    predict = make_predict(Pool(), CODEC, COCO)
    found = predict_dataset(predict, {}, dataset, boxes([]), COCO, CropSpec(SIZE))
    assert found.keypoints.shape == (0, 17, 2)
    assert found.keypoint_scores.shape == (0, 17)


def test_a_network_with_other_joints_than_the_skeleton(dataset):
    with pytest.raises(UserError, match=r"predictions have 17 joints, skeleton 'mpii' has 16"):
        predict_dataset(
            make_predict(Pool(), CODEC, MPII), {}, dataset, boxes([0]), MPII, CropSpec(SIZE)
        )
    with pytest.raises(UserError, match=r"predictions have 17 joints, skeleton 'mpii' has 16"):
        PosePredictions(dataset, boxes([]), np.zeros((0, 17, 2)), np.zeros((0, 17)), MPII)
