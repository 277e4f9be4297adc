"""Synthetic scenes: deterministic, exactly annotated, and hard to predict without the image."""

import collections
import contextlib
import hashlib
import io
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from rmpe_jax import skeletons
from rmpe_jax.data import synthetic
from rmpe_jax.errors import UserError
from rmpe_jax.ops.geometry import box_iou

LEFT = skeletons.COCO.index("left_shoulder")
RIGHT = skeletons.COCO.index("right_shoulder")


@pytest.fixture(scope="module")
def scenes() -> list[synthetic.Scene]:
    return [synthetic.make_scene(seed) for seed in range(100)]


def _digest(scene: synthetic.Scene) -> str:
    digest = hashlib.sha256()
    for array in (scene.image, scene.keypoints, scene.visibility, scene.bboxes, scene.area,
                  scene.instances, scene.detections.bboxes, scene.detections.scores):  # fmt: skip
        digest.update(array.tobytes())
    return digest.hexdigest()


def test_shapes_and_types(scenes):
    for scene in scenes:
        n, m = len(scene.keypoints), len(scene.detections.bboxes)
        assert scene.image.shape == (256, 320, 3)
        assert scene.image.dtype == np.uint8
        assert scene.keypoints.shape == (n, 17, 2)
        assert scene.keypoints.dtype == scene.bboxes.dtype == np.float32
        assert scene.visibility.shape == (n, 17)
        assert scene.visibility.dtype == np.uint8
        assert scene.bboxes.shape == (n, 4)
        assert scene.area.shape == (n,)
        assert scene.detections.bboxes.shape == (m, 4)
        assert scene.detections.scores.shape == (m,)
        for values in (scene.keypoints, scene.bboxes, scene.area, scene.detections.bboxes):
            assert np.isfinite(values).all()


def test_a_seed_gives_the_same_scene_in_every_process(scenes):
    code = (
        "import hashlib, sys; sys.path.insert(0, 'tests/data'); from test_synthetic import _digest;"
        "from rmpe_jax.data import synthetic; print(_digest(synthetic.make_scene(7)))"
    )
    root = skeletons.__file__.rsplit("/", 3)[0]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert run.stdout.strip() == _digest(scenes[7]) == _digest(synthetic.make_scene(7))


def test_different_seeds_differ(scenes):
    assert len({_digest(scene) for scene in scenes}) == len(scenes)


def test_importing_does_not_import_jax():
    code = "import sys, rmpe_jax.data.synthetic; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("size", [(64, 64), (128, 96), (480, 640)])
def test_other_sizes(size):
    for seed in range(8):
        scene = synthetic.make_scene(seed, size)
        assert scene.image.shape == (*size, 3)
        assert len(scene.keypoints) >= 1
        assert (scene.bboxes[:, 2:] <= (size[1], size[0])).all()


@pytest.mark.parametrize(("seed", "size"), [(-1, (256, 320)), (0, (32, 320))])
def test_bad_arguments_get_one_line(seed, size):
    with pytest.raises(UserError, match=r"^a scene.*use [^\n]*$"):
        synthetic.make_scene(seed, size)


def test_numbers_of_people(scenes):
    counts = collections.Counter(len(scene.keypoints) for scene in scenes)
    assert min(counts) == 1
    assert max(counts) == synthetic.MAX_PEOPLE
    assert all(counts[n] >= 0.1 * len(scenes) for n in (1, 2, 3))


def test_area_and_box_are_those_of_the_silhouette(scenes):
    for scene in scenes:
        for index, (box, area) in enumerate(zip(scene.bboxes, scene.area, strict=True)):
            rows, columns = np.nonzero(scene.instances == index + 1)
            assert area == len(rows)
            expected = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
            np.testing.assert_array_equal(box, expected)


def test_visible_keypoints_lie_on_the_person(scenes):
    for scene in scenes:
        for index, (points, visible) in enumerate(_people(scene)):
            x, y = np.rint(points[visible == 2]).astype(int).T
            assert (scene.instances[y, x] == index + 1).all()
            assert len(x) >= 4


def test_labeled_keypoints_lie_in_the_image_and_others_are_zero(scenes):
    for scene in scenes:
        labeled = scene.visibility > 0
        assert (scene.keypoints[~labeled] == 0).all()
        assert (scene.keypoints[labeled] >= -0.5).all()
        assert (scene.keypoints[labeled] <= np.array([319.5, 255.5])).all()


def test_boxes_hold_the_visible_keypoints(scenes):
    for scene in scenes:
        for box, (points, visible) in zip(scene.bboxes, _people(scene), strict=True):
            seen = points[visible == 2]
            # Box edges are pixel edges: pixel 0 covers 0 to 1 there and -0.5 to 0.5 in keypoints.
            assert (seen + 0.5 >= box[:2] - 0.01).all()
            assert (seen + 0.5 <= box[2:] + 0.01).all()


def test_every_visibility_occurs_on_every_joint(scenes):
    flags = np.concatenate([scene.visibility for scene in scenes])
    for flag, least in ((1, 0.01), (2, 0.25)):
        assert ((flags == flag).mean(0) > least).all()
    face_is_labeled = (flags[:, :3] > 0).all(-1).mean()
    assert 0.3 < face_is_labeled < 0.8  # the others look away
    assert 0.6 < (flags == 2).mean() < 0.85


def test_left_is_not_always_on_the_same_side(scenes):
    shoulders = np.concatenate([scene.keypoints[:, [LEFT, RIGHT], 0] for scene in scenes])
    both = np.concatenate([(scene.visibility[:, [LEFT, RIGHT]] > 0).all(-1) for scene in scenes])
    left_is_left = (shoulders[both, 0] < shoulders[both, 1]).mean()
    assert 0.25 < left_is_left < 0.75


def test_pupils_are_painted_at_the_eyes():
    """The image is darker at a visible eye than around it: keypoints and pixels agree."""
    differences = []
    for seed in range(20):
        scene = synthetic.make_scene(seed, (512, 640))
        gray = scene.image.mean(-1)
        for points, visible in _people(scene):
            if not (visible[:5] == 2).all():
                continue
            # Pupils reach to 0.15 head radii, the white around them to 0.24; ears are 2 apart.
            radius = np.abs(points[3] - points[4]).max() * 0.1
            for eye in points[1:3]:
                middle, above = np.rint(eye).astype(int), np.rint(eye - (0, radius)).astype(int)
                differences.append(gray[above[1], above[0]] - gray[middle[1], middle[0]])
    assert len(differences) > 10
    assert np.median(differences) > 60


@pytest.mark.slow
def test_the_mean_pose_of_the_box_scores_nearly_nothing():
    places, labeled = _normalized(synthetic.coco_annotations(range(1000, 1120)))
    mean = (places * labeled[..., None]).sum(0) / labeled.sum(0)[:, None]
    annotations = synthetic.coco_annotations(range(60))
    results = []
    for rank, person in enumerate(annotations["annotations"]):
        box = np.array(person["bbox"])
        points = np.concatenate([box[:2] + mean * box[2:], np.ones((17, 1))], axis=-1)
        results.append(
            {"image_id": person["image_id"], "category_id": 1, "score": 1 - 1e-4 * rank,
             "keypoints": points.ravel().tolist()}
        )  # fmt: skip
    assert _oks_ap(annotations, results) < 0.03  # measured: below 0.001


def test_pycocotools_reads_the_annotations():
    annotations = synthetic.coco_annotations(range(30))
    json.dumps(annotations, allow_nan=False)
    perfect = [
        {"image_id": a["image_id"], "category_id": 1, "score": 1.0, "keypoints": a["keypoints"]}
        for a in annotations["annotations"]
    ]
    assert _oks_ap(annotations, perfect) == pytest.approx(1)
    ids = [a["id"] for a in annotations["annotations"]]
    assert len(set(ids)) == len(ids)
    assert min(ids) > 0
    assert annotations["categories"][0]["keypoints"] == list(skeletons.COCO.joints)


def test_annotations_say_what_the_scene_says():
    scene = synthetic.make_scene(11)
    annotations = synthetic.coco_annotations([11])
    assert annotations["images"] == [
        {"id": 11, "file_name": "000011.jpg", "height": 256, "width": 320}
    ]
    people = annotations["annotations"]
    points = np.array([a["keypoints"] for a in people]).reshape(-1, 17, 3)
    np.testing.assert_allclose(points[..., :2], scene.keypoints, atol=1e-3)
    np.testing.assert_array_equal(points[..., 2], scene.visibility)
    boxes = np.array([a["bbox"] for a in people])
    np.testing.assert_array_equal(boxes[:, :2] + boxes[:, 2:], scene.bboxes[:, 2:])
    assert [a["num_keypoints"] for a in people] == (scene.visibility > 0).sum(-1).tolist()
    assert [a["area"] for a in people] == scene.area.tolist()


def test_detections_are_imperfect_in_every_way(scenes):
    best, hits, sides, precision = [], [], [], []
    for scene in scenes:
        found = scene.detections
        assert (np.diff(found.scores) <= 0).all()
        assert ((found.scores > 0) & (found.scores < 1)).all()
        assert (found.bboxes >= 0).all()
        assert (found.bboxes <= np.array([320, 256, 320, 256])).all()
        iou = box_iou(found.bboxes, scene.bboxes)
        best += iou.max(0, initial=0).tolist()
        hits += (iou > 0.5).sum(0).tolist()
        precision += iou.max(1).tolist()
        sides += found.scores.tolist()
    best, hits, precision = np.array(best), np.array(hits), np.array(precision)
    assert 0.75 < (best > 0.5).mean() < 0.95  # the others are missed or badly cut
    assert 0.4 < (best > 0.75).mean() < 0.85
    assert 0.1 < (hits > 1).mean() < 0.5  # duplicates
    assert 0.05 < (precision < 0.3).mean() < 0.35  # false alarms
    assert np.corrcoef(precision, sides)[0, 1] > 0.4


def test_detections_are_in_cocos_form():
    detections = synthetic.coco_detections([3, 5])
    assert {d["image_id"] for d in detections} == {3, 5}
    scene = synthetic.make_scene(3)
    boxes = np.array([d["bbox"] for d in detections if d["image_id"] == 3])
    np.testing.assert_allclose(boxes[:, :2], scene.detections.bboxes[:, :2], atol=0.01)
    np.testing.assert_allclose(
        boxes[:, :2] + boxes[:, 2:], scene.detections.bboxes[:, 2:], atol=0.02
    )


def test_a_written_folder_is_whole_and_always_the_same(tmp_path):
    counts = []
    synthetic.write_coco_folder(tmp_path / "a", range(4), progress=counts.append)
    synthetic.write_coco_folder(tmp_path / "b", range(4))
    assert counts == [1, 2, 3, 4]
    files = sorted(f.relative_to(tmp_path / "a") for f in (tmp_path / "a").rglob("*.*"))
    assert [str(f) for f in files] == [
        "annotations/person_keypoints.json",
        "detections.json",
        *(f"images/00000{i}.jpg" for i in range(4)),
    ]
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    written = json.loads((tmp_path / "a/annotations/person_keypoints.json").read_text())
    assert written == json.loads(json.dumps(synthetic.coco_annotations(range(4))))
    decoded = cv2.imread(str(tmp_path / "a/images/000002.jpg"))[..., ::-1]
    difference = np.abs(decoded.astype(float) - synthetic.make_scene(2).image)
    assert difference.mean() < 6  # JPEG, with its halved color resolution


def test_a_folder_that_cannot_be_written_gets_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file\S* cannot be written \([^\n]*$"):
        synthetic.write_coco_folder(tmp_path / "file", [0])


def _people(scene: synthetic.Scene) -> list[tuple[np.ndarray, np.ndarray]]:
    return list(zip(scene.keypoints, scene.visibility, strict=True))


def _normalized(annotations: dict) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints in units of their box (n, 17, 2), and which are labeled (n, 17)."""
    people = annotations["annotations"]
    points = np.array([a["keypoints"] for a in people]).reshape(-1, 17, 3)
    boxes = np.array([a["bbox"] for a in people])
    return (points[..., :2] - boxes[:, None, :2]) / boxes[:, None, 2:], points[..., 2] > 0


def _oks_ap(annotations: dict, results: list[dict]) -> float:
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = annotations
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats[0]
