import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.ops.geometry import box_iou
from rmpe_jax.pgpg import (
    PgpgModel,
    Proposals,
    jitter_boxes,
    jitter_strength,
    open_proposals,
    patch_boxes,
    sample_boxes,
    save_pgpg,
)
from rmpe_jax.pgpg.model import (
    AUTHORS_DEVIATIONS,
    AUTHORS_MEANS,
    MIN_SIDE,
    global_model,
    offsets_from_boxes,
)
from rmpe_jax.skeletons import COCO, LSP

BOX = np.array([[100, 50, 180, 290]], np.float32)


def upright(up=True):
    """A pose (14, 2) of LSP: torso 100 px, straight up or with the head down."""
    height = {"ankle": 300, "knee": 200, "hip": 100, "shoulder": 0, "elbow": 50, "wrist": 100}
    height |= {"upper_neck": -20, "head_top": -60}
    y = [height[joint.removeprefix("left_").removeprefix("right_")] for joint in LSP.joints]
    x = [20 * joint.startswith("left") - 20 * joint.startswith("right") for joint in LSP.joints]
    return np.stack([x, y if up else np.negative(y)], -1).astype(np.float32)


@pytest.fixture
def model():
    """Upright people are cut at the left, others at the right; a third Gaussian never occurs."""
    atoms = np.stack([upright(), upright(up=False)]) / 100
    atoms -= (atoms[:, [8]] + atoms[:, [9]] + atoms[:, [2]] + atoms[:, [3]]) / 4
    covariance = np.diag([0.02, 0.01, 0.03, 0.01]) ** 2
    covariance[0, 2] = covariance[2, 0] = 0.0003
    means = np.zeros((3, 3, 4))
    means[0, :2, 0] = 0.3, 0.1
    means[1, :2, 2] = -0.3, -0.1
    means[:, 2] = 100
    weights = np.array([[0.75, 0.25, 0], [0.75, 0.25, 0], [0.5, 0.5, 0]])
    return PgpgModel(LSP.joints, atoms, weights, means, np.tile(covariance, (3, 3, 1, 1)))


def test_boxes_are_distributed_as_the_model_says(model):
    poses = np.stack([upright(), upright(up=False)])
    boxes = sample_boxes(model, np.random.default_rng(0), poses, np.tile(BOX, (2, 1)), 40_000)
    assert boxes.shape == (2, 40_000, 4)
    assert boxes.dtype == np.float32
    offsets = offsets_from_boxes(boxes, BOX[None])
    for row, edge in ((0, 0), (1, 2)):
        often = np.abs(offsets[row, :, edge]) > 0.2
        assert often.mean() == pytest.approx(0.75, abs=0.01)
        for component, chosen in ((0, often), (1, ~often)):
            drawn = offsets[row, chosen]
            np.testing.assert_allclose(drawn.mean(0), model.means[row, component], atol=2e-3)
            expected = model.covariances[row, component]
            np.testing.assert_allclose(np.cov(drawn.T), expected, atol=3e-5)


def test_global_model_is_the_authors(model):
    boxes = sample_boxes(
        global_model(), np.random.default_rng(0), np.full((1, 17, 2), np.nan), BOX, 40_000
    )
    offsets = offsets_from_boxes(boxes[0], BOX)
    np.testing.assert_allclose(offsets.mean(0), AUTHORS_MEANS, atol=3e-3)
    np.testing.assert_allclose(offsets.std(0), AUTHORS_DEVIATIONS, rtol=0.02)


def test_everybody_gets_boxes_of_their_own(model):
    poses = np.stack([upright()] * 3)
    gt = BOX + 100 * np.arange(3, dtype=np.float32)[:, None]
    boxes = sample_boxes(model, np.random.default_rng(0), poses, gt, 5)
    assert (box_iou(boxes, gt[:, None])[..., 0] > 0.4).all()
    assert len(np.unique(boxes[..., 0] - gt[:, :1])) == 15
    again = sample_boxes(model, np.random.default_rng(0), poses, gt, 5)
    np.testing.assert_array_equal(again, boxes)
    assert sample_boxes(model, np.random.default_rng(0), poses[:0], gt[:0], 5).shape == (0, 5, 4)


def test_no_box_is_too_small_or_inside_out():
    wild = global_model((0.0,) * 4, (3.0,) * 4)
    boxes = sample_boxes(wild, np.random.default_rng(0), np.zeros((1, 17, 2)), BOX, 500)
    size = boxes[..., 2:] - boxes[..., :2]
    assert (size >= MIN_SIDE - 1e-3).all()
    assert (np.isclose(size, MIN_SIDE, atol=1e-3).any(-1)).mean() > 0.5


boxes_of_people = st.tuples(
    st.floats(-100, 500), st.floats(-100, 500), st.floats(10, 800), st.floats(10, 800)
).map(lambda b: np.array([[b[0], b[1], b[0] + b[2], b[1] + b[3]]], np.float32))


@settings(max_examples=60, deadline=None)
@given(bbox=boxes_of_people, seed=st.integers(0, 10**6))
def test_jittered_boxes_overlap_by_half(bbox, seed):
    boxes = jitter_boxes(np.random.default_rng(seed), bbox, 50)
    assert boxes.shape == (1, 50, 4)
    assert (box_iou(boxes[0], bbox) > 0.4999).all()


def test_jittered_boxes_reach_all_the_way_to_the_limit():
    boxes = jitter_boxes(np.random.default_rng(0), BOX, 2000)[0]
    iou = box_iou(boxes, BOX)
    assert iou.min() < 0.52
    assert iou.max() > 0.9
    assert (iou == 1).mean() < 0.002  # it is very rare that no try is good enough
    left, top, right, bottom = offsets_from_boxes(boxes, BOX).mean(0)
    np.testing.assert_allclose([left + right, top + bottom], 0, atol=0.02)


@pytest.mark.parametrize("median", [0.6, 0.745, 0.9])
def test_jitter_as_strong_as_a_detectors_errors(median):
    strength = jitter_strength(median)
    boxes = jitter_boxes(np.random.default_rng(7), BOX, 4000, strength)[0]
    assert np.median(box_iou(boxes, BOX)) == pytest.approx(median, abs=0.015)
    assert jitter_strength(0.4) == 1
    proposals = open_proposals("jitter", "", 0.0, LSP, strength)
    assert proposals.jitter_strength == strength


@settings(max_examples=60, deadline=None)
@given(bbox=boxes_of_people, seed=st.integers(0, 10**6))
def test_patches_lie_inside_and_keep_the_aspect(bbox, seed):
    patches = patch_boxes(np.random.default_rng(seed), bbox, 30)[0]
    size, whole = patches[:, 2:] - patches[:, :2], bbox[0, 2:] - bbox[0, :2]
    fraction = size / whole
    np.testing.assert_allclose(fraction[:, 0], fraction[:, 1], atol=2e-3)
    assert (fraction > 0.699).all()
    assert (fraction < 1.001).all()
    assert (patches[:, :2] >= bbox[:, :2] - 1e-2).all()
    assert (patches[:, 2:] <= bbox[:, 2:] + 1e-2).all()


def draw(proposals, rng, size=(400, 400)):
    return proposals.draw(rng, BOX[0], upright(), np.full(14, 2, np.uint8), size)


def test_none_draws_nothing():
    rng = np.random.default_rng(0)
    before = rng.bit_generator.state
    well_placed, proposal = draw(Proposals(), rng, size=(10, 10))
    assert well_placed is proposal
    np.testing.assert_array_equal(proposal, BOX[0])
    assert rng.bit_generator.state == before


@pytest.mark.parametrize("mode", ["jitter", "global"])
def test_proposals_leave_the_well_placed_box_alone(mode):
    proposals = open_proposals(mode, "", 0.0, LSP)
    rng = np.random.default_rng(0)
    drawn = [draw(proposals, rng) for _ in range(5)]
    assert all(np.array_equal(well_placed, BOX[0]) for well_placed, _ in drawn)
    assert len({tuple(proposal) for _, proposal in drawn}) == 5


def test_atomic_proposals_look_at_the_pose(model, tmp_path):
    save_pgpg(tmp_path / "model.npz", model)
    proposals = open_proposals("atomic", tmp_path / "model.npz", 0.0, COCO)
    assert proposals.model.joints == COCO.joints
    rng = np.random.default_rng(0)
    for up in (True, False):
        keypoints = np.zeros((17, 2), np.float32)
        shared = [i for i, joint in enumerate(COCO.joints) if joint in LSP.joints]
        keypoints[shared] = upright(up)[[LSP.index(COCO.joints[i]) for i in shared]]
        visibility = np.isin(np.arange(17), shared).astype(np.uint8)
        for _ in range(20):
            _, box = proposals.draw(rng, BOX[0], keypoints, visibility, (400, 400))
            left, _, right, _ = offsets_from_boxes(box, BOX[0])
            assert left > 0.03 if up else right < 0, (left, right)
    blind = [
        proposals.draw(rng, BOX[0], keypoints, np.zeros(17), (400, 400))[1] for _ in range(200)
    ]
    np.testing.assert_allclose(offsets_from_boxes(np.mean(blind, 0), BOX[0]), 0, atol=0.01)


@pytest.mark.parametrize("mode", ["none", "jitter"])
def test_patches_come_as_often_as_asked_and_are_well_placed_themselves(mode):
    rng = np.random.default_rng(0)
    drawn = [draw(Proposals(mode, patch_prob=0.3), rng) for _ in range(500)]
    patches = [
        proposal for well_placed, proposal in drawn if not np.array_equal(well_placed, BOX[0])
    ]
    assert len(patches) / 500 == pytest.approx(0.3, abs=0.06)
    assert all(np.array_equal(a, b) for a, b in drawn if not np.array_equal(a, BOX[0]))


@pytest.mark.parametrize("mode", ["jitter", "global"])
def test_boxes_end_with_the_image(mode):
    proposals = open_proposals(mode, "", 0.5, LSP)
    rng = np.random.default_rng(0)
    boxes = np.array([draw(proposals, rng, size=(280, 170))[1] for _ in range(100)])
    assert (boxes[:, 2] <= 170 + MIN_SIDE).all()
    assert (boxes[:, 3] == 280).any()
    assert (boxes[:, 2] == 170).any()


def test_they_travel_to_worker_processes():
    proposals = pickle.loads(pickle.dumps(open_proposals("global", "", 0.1, LSP)))
    a, b = draw(proposals, np.random.default_rng(3)), draw(proposals, np.random.default_rng(3))
    np.testing.assert_array_equal(a, b)


def test_what_cannot_be_is_said(tmp_path):
    with pytest.raises(UserError, match="'random'"):
        open_proposals("random", "", 0.0, COCO)
    with pytest.raises(UserError, match="rmpe fit-pgpg"):
        open_proposals("atomic", "", 0.0, COCO)
    with pytest.raises(UserError, match="cannot be read"):
        open_proposals("atomic", tmp_path / "none.npz", 0.0, COCO)


def test_sampling_needs_neither_jax_nor_scikit_learn():
    code = (
        "import sys; sys.modules['jax'] = sys.modules['sklearn'] = None\n"
        "import numpy as np; from rmpe_jax.pgpg import sample_boxes; "
        "from rmpe_jax.pgpg.model import global_model\n"
        "box = np.float32([[0, 0, 9, 9]])\n"
        "sample_boxes(global_model(), np.random.default_rng(0), np.zeros((1, 17, 2)), box, 3)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
