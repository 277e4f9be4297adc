"""From images to poses, with a network that finds bright spots."""

import struct
import subprocess
import sys
import zlib

import bright
import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rmpe_jax
from rmpe_jax.data import augment
from rmpe_jax.data.images import read_image
from rmpe_jax.detectors import Boxes
from rmpe_jax.detectors.lookup import LookupDetector
from rmpe_jax.errors import UserError
from rmpe_jax.inference import estimator as estimator_module
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.pose_model import save_pose_model
from rmpe_jax.ops import geometry
from rmpe_jax.pose_nms import NmsResult, PoseNmsParams
from rmpe_jax.skeletons import COCO
from rmpe_jax.top_down.prediction import make_predict

SIZE = (140, 180)
CENTERS = [(60.3, 40.8), (110.1, 70.6), (45.0, 95.4), (150.7, 30.2)]
IMAGE = bright.spots(SIZE, CENTERS)
BOXES = bright.boxes_around(CENTERS)


@pytest.fixture(scope="module")
def estimator():
    """Shared by the tests, so that it compiles once."""
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        return PoseEstimator(bright.pose_model(), detector=bright.find_spots, batch_size=3)


def poses_of_evaluation(image, bboxes, flip_test=False):
    """Keypoints and scores as in `eval.py`: cropped by OpenCV, not folded, before NMS."""
    model = bright.pose_model()
    network, codec = bright.Bright(17), model.build()[1]
    affines = np.stack([geometry.image_from_crop(box, bright.INPUT_SIZE, 1.25) for box in bboxes])
    crops = np.stack([augment.crop(image, affine, bright.INPUT_SIZE) for affine in affines])
    predict = make_predict(network, codec, COCO, flip_test=flip_test)
    return [np.asarray(values) for values in predict(model.variables, crops, affines)]


def assert_same_as_in_evaluation(poses, flip_test):
    keypoints, scores = poses_of_evaluation(IMAGE, BOXES.bboxes, flip_test)
    person_scores = BOXES.scores * scores.mean(-1)
    order = np.argsort(-person_scores)
    np.testing.assert_allclose(poses.keypoints, keypoints[order], atol=0.1)
    np.testing.assert_allclose(poses.keypoint_scores, scores[order], atol=0.01)
    np.testing.assert_allclose(poses.scores, person_scores[order], atol=0.01)
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


def test_poses_are_at_the_people_best_first(estimator):
    poses = estimator.estimate(IMAGE, *BOXES)
    assert [values.dtype for values in poses] == [np.float32] * 5
    assert (np.diff(poses.scores) <= 0).all()
    found = poses.keypoints[np.argsort(-poses.bbox_scores)]
    assert np.abs(found - np.array(CENTERS)[:, None]).max() < 1


def test_without_scores_all_boxes_have_score_1(estimator):
    assert (estimator.estimate(IMAGE, BOXES.bboxes.tolist()).bbox_scores == 1).all()


UNUSABLE = {
    "not finite": [np.nan, 0, 50, 50],
    "infinite": [0, 0, np.inf, 50],
    "without area": [20, 20, 20, 60],
    "inside out": [60, 60, 20, 20],
    "outside": [180, 0, 220, 60],
    "touching": [-50, 20, 0, 60],
    "far too large": [-1e6, -1e6, 1e6, 1e6],
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_boxes_are_skipped(estimator, kind):
    bboxes = np.array([UNUSABLE[kind], BOXES.bboxes[0]], np.float32)
    poses = estimator.estimate(IMAGE, bboxes)
    np.testing.assert_array_equal(poses.bboxes, BOXES.bboxes[:1])
    assert np.isfinite(poses.keypoints).all()
    assert len(estimator.estimate(IMAGE, bboxes[:1]).scores) == 0


def test_boxes_with_scores_that_are_not_finite_are_skipped(estimator):
    poses = estimator.estimate(IMAGE, BOXES.bboxes[:3], [np.nan, 0.5, np.inf])
    np.testing.assert_array_equal(poses.bboxes, BOXES.bboxes[1:2])
    assert np.isfinite(poses.scores).all()


def test_no_people(estimator):
    for bboxes in (np.zeros((0, 4)), []):
        poses = estimator.estimate(IMAGE, bboxes)
        assert poses.keypoints.shape == (0, 17, 2)
        assert [len(values) for values in poses] == [0] * 5
    assert estimator.predict_batch([]) == []


def test_the_smallest_image_and_a_gray_one(estimator):
    poses = estimator.estimate(np.full((1, 1), 200, np.uint8), np.array([[0, 0, 1, 1]]))
    assert np.isfinite(poses.keypoints).all()
    gray = estimator.estimate(IMAGE[..., 0], *BOXES)
    with_alpha = estimator.estimate(np.dstack([IMAGE, IMAGE[..., 0]]), *BOXES)
    for a, b, c in zip(gray, with_alpha, estimator.estimate(IMAGE, *BOXES), strict=True):
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
def test_invalid_images(estimator, image):
    with pytest.raises(UserError, match=r"give \(height, width, 3\) of uint8"):
        estimator.estimate(image, BOXES.bboxes)


def test_invalid_boxes(estimator):
    with pytest.raises(UserError, match=r"give \(n, 4\) and \(n,\)"):
        estimator.estimate(IMAGE, BOXES.bboxes[:, :3])
    with pytest.raises(UserError, match=r"give \(n, 4\) and \(n,\)"):
        estimator.estimate(IMAGE, BOXES.bboxes, BOXES.scores[:2])
    with pytest.raises(UserError, match=r"give \(n, 4\) and \(n,\)"):
        estimator.estimate(IMAGE, BOXES.bboxes, BOXES.scores[:, None])
    for bboxes in ([[1, 2, 3], [1, 2, 3, 4]], [list("abcd")]):
        with pytest.raises(UserError, match=r"not arrays of numbers: give \(n, 4\)"):
            estimator.estimate(IMAGE, bboxes)


def test_duplicate_poses_are_merged(bright_network):
    """By AlphaPose's NMS."""
    estimator = PoseEstimator(bright.pose_model(nms=None))
    twice = np.concatenate([BOXES.bboxes, BOXES.bboxes + np.array([3, -2, 4, 1], np.float32)])
    poses = estimator.estimate(IMAGE, twice)
    assert len(poses.scores) == len(CENTERS)
    assert {tuple(box) for box in poses.bboxes} <= {tuple(box) for box in twice}


def test_many_boxes_in_chunks(estimator, bright_network, monkeypatch):
    """Poses do not depend on the chunk and the padding."""
    rng = np.random.default_rng(0)
    bboxes = np.repeat(BOXES.bboxes, 3, 0) + rng.uniform(-4, 4, (12, 4)).astype(np.float32)
    scores = rng.uniform(0.5, 1, 12)
    expected = estimator.estimate(IMAGE, bboxes, scores)
    monkeypatch.setattr(estimator_module, "_MIN_PEOPLE", 4)
    found = PoseEstimator(bright.pose_model(), chunk=2).estimate(IMAGE, bboxes, scores)
    assert len(found.scores) == 12
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)


def test_a_chunk_that_is_not_a_divisor(bright_network):
    with pytest.raises(UserError, match="chunk=5 is invalid"):
        PoseEstimator(bright.pose_model(), chunk=5)


def test_batches_give_the_same_poses(estimator):
    """Images of different sizes, one without people, and one more than a batch."""
    images = [bright.spots((90 + 10 * i, 150 - 20 * i), CENTERS[: i % 3]) for i in range(1, 3)]
    images += [np.zeros((40, 60, 3), np.uint8), IMAGE]
    together = estimator.predict_batch(images)
    assert [len(poses.scores) for poses in together] == [1, 2, 0, 4]
    for image, poses in zip(images, together, strict=True):
        for a, b in zip(poses, estimator.predict(image), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_detector_gets_the_name(bright_network):
    names = []

    def detector(image, name):
        names.append(name)
        return Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.float32))

    estimator = PoseEstimator(bright.pose_model(), detector=detector)
    estimator.predict(IMAGE, "a.jpg")
    estimator.predict_batch([IMAGE, IMAGE], ["b.jpg", "c.jpg"])
    assert names == ["a.jpg", "b.jpg", "c.jpg"]


def test_a_path_is_read_like_the_array(bright_network, tmp_path):
    """With the EXIF orientation applied and the file's name given to the detector."""
    path = tmp_path / "rotated.png"
    cv2.imwrite(str(path), IMAGE[..., ::-1])
    path.write_bytes(with_orientation(path.read_bytes(), 6))  # 90 degrees clockwise
    names = []

    def detector(image, name):
        names.append(name)
        return bright.find_spots(image)

    estimator = PoseEstimator(bright.pose_model(), detector=detector)
    image = read_image(path, upright=True)
    assert image.shape == (*SIZE[::-1], 3)
    expected = estimator.predict(image)
    assert len(expected.scores) == len(CENTERS)
    for given in (path, str(path)):
        for a, b in zip(estimator.predict(given), expected, strict=True):
            np.testing.assert_array_equal(a, b)
    estimator.predict(path, "other.png")
    assert names == ["", "rotated.png", "rotated.png", "other.png"]


def test_boxes_that_are_looked_up_refer_to_the_stored_pixels(bright_network, tmp_path):
    path = tmp_path / "rotated.png"
    cv2.imwrite(str(path), IMAGE[..., ::-1])
    path.write_bytes(with_orientation(path.read_bytes(), 6))
    found = bright.find_spots(IMAGE)
    estimator = PoseEstimator(
        bright.pose_model(), detector=LookupDetector("a file", {"rotated": found})
    )
    expected = estimator.predict(IMAGE, "rotated.png")
    assert len(expected.scores) == len(CENTERS)
    for a, b in zip(estimator.predict(path), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def with_orientation(png: bytes, orientation: int) -> bytes:
    """The PNG with an eXIf chunk before its first IDAT chunk."""
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    chunk = b"eXIf" + tiff
    chunk = struct.pack(">I", len(tiff)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    position = png.index(b"IDAT") - 4
    return png[:position] + chunk + png[position:]


def test_without_a_detector(bright_network):
    with pytest.raises(UserError, match="there is no detector"):
        PoseEstimator(bright.pose_model()).predict(IMAGE)


def test_one_compilation_for_images_of_usual_sizes(estimator):
    estimator.estimate(IMAGE, *BOXES)
    before = estimator._estimate_poses._cache_size()
    for height, width in ((20, 50), (600, 800), (50, 20), (1, 999)):
        for count in (1, 5, 32):
            box = np.array([[0, 0, 20, 20]], np.float32)
            estimator.estimate(np.zeros((height, width), np.uint8), np.repeat(box, count, 0))
    assert estimator._estimate_poses._cache_size() == before


def test_one_more_for_four_times_the_pixels_or_people(bright_network, monkeypatch):
    def only_shapes(*_, **__):
        @jax.jit
        def estimate_poses(variables, pixels, sizes, boxes, nms):
            n = len(boxes.bboxes)
            joints = jnp.zeros((n, 17, 2)), jnp.zeros((n, 17))
            return NmsResult(*joints, jnp.zeros(n), jnp.zeros(n, bool), jnp.zeros(n, int))

        return estimate_poses

    monkeypatch.setattr(estimator_module, "make_estimate_poses", only_shapes)
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
        assert estimator._estimate_poses._cache_size() == compiled


def test_the_nms_is_the_given_one_or_the_models_or_alphaposes(bright_network):
    def nms_of(given, own):
        return PoseEstimator(bright.pose_model(own), nms=given)._nms

    paper, rmpe = PoseNmsParams.preset("paper"), PoseNmsParams.preset("rmpe")
    assert nms_of(paper, rmpe) is paper
    assert nms_of(None, rmpe) is rmpe
    assert nms_of(None, None) is PoseNmsParams.preset("alphapose")


def test_importing_the_package_imports_nothing_heavy():
    script = (
        "import sys, rmpe_jax\nassert not {'jax', 'cv2', 'flax'} & set(sys.modules)\n"
        "try: rmpe_jax.nothing\nexcept AttributeError: print('correct')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "correct\n", done.stderr
