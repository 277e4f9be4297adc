"""From pictures to poses, with a network that points at bright spots."""

import subprocess
import sys

import bright
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmpe_jax
from rmpe_jax.data import augment
from rmpe_jax.detectors import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.inference import estimator as estimator_module
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.pose_model import save_pose_model
from rmpe_jax.ops import geometry
from rmpe_jax.pose_nms import NmsResult, PoseNmsParams
from rmpe_jax.skeletons import COCO
from rmpe_jax.top_down.prediction import make_predict

SIZE = (140, 180)
CENTRES = [(60.3, 40.8), (110.1, 70.6), (45.0, 95.4), (150.7, 30.2)]
IMAGE = bright.spots(SIZE, CENTRES)
BOXES = bright.boxes_about(CENTRES)


@pytest.fixture(scope="module")
def estimator():
    """Shared, so that what it has compiled is too."""
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        return PoseEstimator(bright.pose_model(), detector=bright.find_spots, batch_size=3)


def eval_path(image, bboxes, flip_test=False):
    """Keypoints and scores as `eval.py` finds them: cropped by OpenCV, not folded, before NMS."""
    model = bright.pose_model()
    network, codec = bright.Bright(17), model.build()[1]
    affines = np.stack([geometry.image_from_crop(box, bright.SIZE, 1.25) for box in bboxes])
    crops = np.stack([augment.crop(image, affine, bright.SIZE) for affine in affines])
    predict = make_predict(network, codec, COCO, flip_test=flip_test)
    return [np.asarray(values) for values in predict(model.variables, crops, affines)]


def assert_same_as_in_evaluation(poses, flip_test):
    keypoints, scores = eval_path(IMAGE, BOXES.bboxes, flip_test)
    people = BOXES.scores * scores.mean(-1)
    order = np.argsort(-people)
    np.testing.assert_allclose(poses.keypoints, keypoints[order], atol=0.1)
    np.testing.assert_allclose(poses.keypoint_scores, scores[order], atol=0.01)
    np.testing.assert_allclose(poses.scores, people[order], atol=0.01)
    np.testing.assert_array_equal(poses.bboxes, BOXES.bboxes[order])
    np.testing.assert_array_equal(poses.bbox_scores, BOXES.scores[order])


def test_the_same_poses_as_in_evaluation(estimator, bright_network):
    assert_same_as_in_evaluation(estimator.estimate(IMAGE, *BOXES), flip_test=False)


def test_from_a_file_with_a_flip_test(bright_network, tmp_path):
    path = tmp_path / "model.safetensors"
    save_pose_model(path, bright.pose_model())
    from_checkpoint = rmpe_jax.PoseEstimator.from_checkpoint
    estimator = from_checkpoint(path, detector="whole", flip_test=True)
    assert_same_as_in_evaluation(estimator.estimate(IMAGE, *BOXES), flip_test=True)
    poses = estimator.predict(bright.spots((60, 50), [(20.0, 30.0)]))
    np.testing.assert_array_equal(poses.bboxes, [[0, 0, 50, 60]])
    assert np.abs(poses.keypoints - np.array([20.0, 30.0])).max() < 1
    with pytest.raises(UserError, match="pose NMS parameters none cannot be read"):
        from_checkpoint(path, nms="none")


def test_poses_are_where_the_people_are_best_first(estimator):
    poses = estimator.estimate(IMAGE, *BOXES)
    assert [values.dtype for values in poses] == [np.float32] * 5
    assert (np.diff(poses.scores) <= 0).all()
    found = poses.keypoints[np.argsort(-poses.bbox_scores)]
    assert np.abs(found - np.array(CENTRES)[:, None]).max() < 1


def test_without_scores_boxes_count_alike(estimator):
    assert (estimator.estimate(IMAGE, BOXES.bboxes.tolist()).bbox_scores == 1).all()


UNUSABLE = {
    "not finite": [np.nan, 0, 50, 50],
    "endless": [0, 0, np.inf, 50],
    "without area": [20, 20, 20, 60],
    "inside out": [60, 60, 20, 20],
    "outside": [180, 0, 220, 60],
    "beside": [-50, 20, 0, 60],
    "far too large": [-1e6, -1e6, 1e6, 1e6],
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_boxes_are_left_out(estimator, kind):
    bboxes = np.array([UNUSABLE[kind], BOXES.bboxes[0]], np.float32)
    poses = estimator.estimate(IMAGE, bboxes)
    np.testing.assert_array_equal(poses.bboxes, BOXES.bboxes[:1])
    assert np.isfinite(poses.keypoints).all()
    assert len(estimator.estimate(IMAGE, bboxes[:1]).scores) == 0


def test_nobody(estimator):
    poses = estimator.estimate(IMAGE, np.zeros((0, 4)))
    assert poses.keypoints.shape == (0, 17, 2)
    assert [len(values) for values in poses] == [0] * 5
    assert estimator.predict_batch([]) == []


def test_the_smallest_picture_and_a_grey_one(estimator):
    poses = estimator.estimate(np.full((1, 1), 200, np.uint8), np.array([[0, 0, 1, 1]]))
    assert np.isfinite(poses.keypoints).all()
    grey = estimator.estimate(IMAGE[..., 0], *BOXES)
    with_alpha = estimator.estimate(np.dstack([IMAGE, IMAGE[..., 0]]), *BOXES)
    for a, b, c in zip(grey, with_alpha, estimator.estimate(IMAGE, *BOXES), strict=True):
        np.testing.assert_array_equal(a, c)
        np.testing.assert_array_equal(b, c)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 5, 2), np.uint8),
        np.zeros((5, 5, 3), np.float32),
        np.zeros(5, np.uint8),
    ],
)
def test_what_is_no_picture(estimator, image):
    with pytest.raises(UserError, match=r"give \(height, width, 3\) of uint8"):
        estimator.estimate(image, BOXES.bboxes)


def test_what_are_no_boxes(estimator):
    with pytest.raises(UserError, match=r"give \(n, 4\) and \(n,\)"):
        estimator.estimate(IMAGE, BOXES.bboxes[:, :3])
    with pytest.raises(UserError, match=r"give \(n, 4\) and \(n,\)"):
        estimator.estimate(IMAGE, BOXES.bboxes, BOXES.scores[:2])


def test_people_who_are_found_twice_are_one_person(bright_network):
    """AlphaPose's NMS; both joints of 10 and 5 pixels apart are one spot's."""
    estimator = PoseEstimator(bright.pose_model(nms=None))
    twice = np.concatenate([BOXES.bboxes, BOXES.bboxes + np.array([3, -2, 4, 1], np.float32)])
    poses = estimator.estimate(IMAGE, twice)
    assert len(poses.scores) == len(CENTRES)
    assert {tuple(box) for box in poses.bboxes} <= {tuple(box) for box in twice}


def test_many_boxes_in_chunks(estimator, bright_network, monkeypatch):
    """Whatever the chunk and the padding of people, the poses are the same."""
    rng = np.random.default_rng(0)
    bboxes = np.repeat(BOXES.bboxes, 3, 0) + rng.uniform(-4, 4, (12, 4)).astype(np.float32)
    scores = rng.uniform(0.5, 1, 12)
    expected = estimator.estimate(IMAGE, bboxes, scores)
    monkeypatch.setattr(estimator_module, "_SMALLEST_CROWD", 4)
    found = PoseEstimator(bright.pose_model(), chunk=2).estimate(IMAGE, bboxes, scores)
    assert len(found.scores) == 12
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_chunk_that_does_not_divide(bright_network):
    with pytest.raises(UserError, match="chunk=5 cannot be"):
        PoseEstimator(bright.pose_model(), chunk=5)


def test_pictures_in_batches_are_as_one_by_one(estimator):
    """Of different sizes, one without people, and one too many for a batch."""
    pictures = [bright.spots((90 + 10 * i, 150 - 20 * i), CENTRES[: i % 3]) for i in range(1, 3)]
    pictures += [np.zeros((40, 60, 3), np.uint8), IMAGE]
    together = estimator.predict_batch(pictures)
    assert [len(poses.scores) for poses in together] == [1, 2, 0, 4]
    for image, poses in zip(pictures, together, strict=True):
        for a, b in zip(poses, estimator.predict(image), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_detector_is_told_the_name(bright_network):
    names = []

    def detector(image, name):
        names.append(name)
        return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    estimator = PoseEstimator(bright.pose_model(), detector=detector)
    estimator.predict(IMAGE, "a.jpg")
    estimator.predict_batch([IMAGE, IMAGE], ["b.jpg", "c.jpg"])
    assert names == ["a.jpg", "b.jpg", "c.jpg"]


def test_without_a_detector(bright_network):
    with pytest.raises(UserError, match="there is no detector"):
        PoseEstimator(bright.pose_model()).predict(IMAGE)


def test_one_compilation_for_all_usual_pictures(estimator):
    estimator.estimate(IMAGE, *BOXES)
    before = estimator._program._cache_size()
    for height, width in ((20, 50), (600, 800), (50, 20), (1, 999)):
        for count in (1, 5, 32):
            box = np.array([[0, 0, 20, 20]], np.float32)
            estimator.estimate(np.zeros((height, width), np.uint8), np.repeat(box, count, 0))
    assert estimator._program._cache_size() == before


def test_one_more_for_four_times_the_pixels_or_people(bright_network, monkeypatch):
    def shapes_alone(*_, **__):
        @jax.jit
        def program(variables, pictures, sizes, people, nms):
            n = len(people.bboxes)
            joints = jnp.zeros((n, 17, 2)), jnp.zeros((n, 17))
            return NmsResult(*joints, jnp.zeros(n), jnp.zeros(n, bool), jnp.zeros(n, int))

        return program

    monkeypatch.setattr(estimator_module, "make_program", shapes_alone)
    estimator = PoseEstimator(bright.pose_model())
    box = np.array([[0, 0, 20, 20]], np.float32)
    for size, people, compiled in (
        ((2**9, 2**10), 32, 1),
        ((2**10, 2**9), 1, 1),
        ((2**9, 2**10 + 1), 32, 2),
        ((2**10, 2**11), 32, 2),
        ((2**10, 2**11), 33, 3),
        ((2**10, 2**11), 128, 3),
    ):
        estimator.estimate(np.zeros(size, np.uint8), np.repeat(box, people, 0))
        assert estimator._program._cache_size() == compiled


def test_the_nms_is_the_callers_or_the_models_or_alphaposes(bright_network):
    def nms_of(given, own):
        return PoseEstimator(bright.pose_model(own), nms=given)._nms

    paper, rmpe = PoseNmsParams.preset("paper"), PoseNmsParams.preset("rmpe")
    assert nms_of(paper, rmpe) is paper
    assert nms_of(None, rmpe) is rmpe
    assert nms_of(None, None) is PoseNmsParams.preset("alphapose")


def test_importing_the_package_imports_nothing_heavy():
    script = (
        "import sys, rmpe_jax\nassert not {'jax', 'cv2', 'flax'} & set(sys.modules)\n"
        "try: rmpe_jax.nothing\nexcept AttributeError: print('right')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "right\n", done.stderr
