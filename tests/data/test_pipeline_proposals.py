"""Box proposals in the training stream."""

import numpy as np
import pytest
from fake_source import FakeSource

from rmpe_jax.data.augment import NO_AUGMENTATION, Augmentation
from rmpe_jax.data.pipeline import train_dataset
from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.pgpg import Proposals, open_proposals, save_pgpg
from rmpe_jax.pgpg.model import global_model
from rmpe_jax.skeletons import COCO

SIZE = (32, 24)


def batch(augmentation=NO_AUGMENTATION, step=0, padding=1.25, **options):
    dataset = train_dataset(
        FakeSource(40),
        skeleton=COCO,
        crop=CropSpec(SIZE, padding),
        augmentation=augmentation,
        batch_size=40,
        seed=7,
        **options,
    )
    return dataset[step]


def placed(batch):
    """Each person's box, and the affine from the crop to the crop of that box."""
    source = FakeSource(40)
    boxes = [source[int(i) - 1000]["bbox"] for i in batch["person_id"]]
    own = np.array([geometry.image_from_crop(bbox, SIZE, 1.25) for bbox in boxes])
    return boxes, geometry.compose(geometry.invert(own), batch["image_from_crop"])


def test_without_proposals_batches_are_as_they_were():
    augmentation = Augmentation(half_body_prob=0.3, color_gain=(0.6, 1.4))
    without, given = batch(augmentation), batch(augmentation, proposals=Proposals("none"))
    for name in without:
        np.testing.assert_array_equal(given[name], without[name], err_msg=name)


@pytest.mark.parametrize("mode", ["jitter", "global", "atomic"])
def test_crops_are_of_the_proposals(mode, tmp_path):
    save_pgpg(tmp_path / "model.npz", global_model((0.2, 0.0, 0.2, 0.0), (0.01,) * 4))
    proposals = open_proposals(mode, tmp_path / "model.npz", 0.0, COCO)
    crops = batch(proposals=proposals)
    boxes, own_from_crop = placed(crops)
    moved = np.abs(own_from_crop - np.eye(2, 3)).max((1, 2))
    assert (moved > 1e-3).mean() > 0.95
    np.testing.assert_allclose(crops["centered_from_crop"], own_from_crop, atol=1e-3)
    if mode == "atomic":  # a fifth of the width to the right, unless clipped by the image
        width = np.array([bbox[2] - bbox[0] for bbox in boxes])
        center = geometry.transform_points(
            crops["image_from_crop"], np.tile(np.float32([[11.5, 15.5]]), (40, 1, 1))
        )[:, 0, 0]
        shift = (center - [(bbox[0] + bbox[2] - 1) / 2 for bbox in boxes]) / width
        assert np.median(shift) == pytest.approx(0.2, abs=0.03)


def test_joints_follow_the_crop():
    crops = batch(proposals=open_proposals("jitter", "", 0.0, COCO))
    source = FakeSource(40)
    for row, person_id in enumerate(crops["person_id"]):
        person = source[int(person_id) - 1000]
        back = geometry.transform_points(crops["image_from_crop"][row], crops["keypoints"][row])
        seen = person["visibility"] > 0
        np.testing.assert_allclose(back[seen], person["keypoints"][seen], atol=1e-2)


def test_patches_are_well_placed_themselves():
    crops = batch(proposals=Proposals(patch_prob=1.0))
    _, own_from_crop = placed(crops)
    scale = own_from_crop[:, 0, 0]
    assert (np.abs(scale - 1) > 1e-3).mean() > 0.9
    expected = np.tile(np.eye(2, 3), (40, 1, 1))
    np.testing.assert_allclose(crops["centered_from_crop"], expected, atol=1e-4)


def test_proposals_are_drawn_anew_in_each_epoch_and_repeat_with_the_seed():
    proposals = open_proposals("global", "", 0.3, COCO)
    first, again, later = (batch(proposals=proposals, step=step) for step in (0, 0, 1))
    np.testing.assert_array_equal(first["image"], again["image"])
    order, later_order = (np.argsort(b["person_id"]) for b in (first, later))
    same = first["image_from_crop"][order] == later["image_from_crop"][later_order]
    assert not same.all((1, 2)).any()
