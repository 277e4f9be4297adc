"""Facial joints from a teacher that knows the truth, or something else."""

import json

import numpy as np
import pytest

from rmpe_jax.data import synthetic
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError
from rmpe_jax.experiments.label_faces import (
    SIZE,
    Pose,
    Teacher,
    agrees,
    label,
    upright_square,
)
from rmpe_jax.files import write_json
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import COCO

TORSO = ["left_shoulder", "right_shoulder", "left_hip", "right_hip"]


def person(angle: float = 0.0) -> np.ndarray:
    """COCO's joints of an upright person, rotated about (100, 100)."""
    keypoints = np.full((17, 2), 100.0)
    for joint, point in {
        "left_shoulder": (110, 60),
        "right_shoulder": (90, 60),
        "left_hip": (106, 100),
        "right_hip": (94, 100),
        "left_ankle": (106, 180),
        "right_ankle": (94, 180),
    }.items():
        keypoints[COCO.joints.index(joint)] = point
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return ((keypoints - 100) @ turn.T + 100).astype(np.float32)


@pytest.mark.parametrize("angle", [0, 0.5, np.pi / 2, np.pi, -2.5])
def test_the_body_stands_upright_in_the_square(angle):
    keypoints = person(angle)
    labeled = np.ones(17, bool)
    crop_from_image = geometry.invert(upright_square(keypoints, labeled))
    points = geometry.transform_points(crop_from_image, keypoints)
    assert np.all((points > 0) & (points < SIZE - 1))
    indices = [COCO.joints.index(joint) for joint in TORSO]
    shoulders, hips = points[indices[:2]].mean(0), points[indices[2:]].mean(0)
    np.testing.assert_allclose(hips, (SIZE - 1) / 2, atol=1e-3)
    np.testing.assert_allclose(shoulders[0], hips[0], atol=1e-3)
    assert shoulders[1] < hips[1]
    # Not mirrored: the left shoulder of a person who faces the camera is on the right.
    assert points[indices[0], 0] > points[indices[1], 0]


def test_no_square_without_a_torso():
    labeled = np.ones(17, bool)
    labeled[COCO.joints.index("left_hip")] = False
    assert upright_square(person(), labeled) is None
    assert upright_square(np.zeros((17, 2), np.float32), np.ones(17, bool)) is None


def test_a_teacher_that_found_another_person_is_not_used():
    keypoints, labeled, confidence = person(), np.ones(17, bool), np.ones(17)
    assert agrees(Pose(keypoints + 5, confidence), keypoints, labeled)
    assert not agrees(Pose(keypoints + 15, confidence), keypoints, labeled)
    back_to_front = keypoints[COCO.flip_indices]
    assert not agrees(Pose(back_to_front, confidence), keypoints, labeled)


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    synthetic.write_coco_folder(folder, range(3))
    return open_dataset(f"coco:{folder}"), folder


def test_faces_come_from_the_teacher_and_the_rest_from_annotations(scenes, tmp_path):
    dataset, _ = scenes
    truth = [keypoints for record in dataset.images for keypoints in record.keypoints]
    seen = []

    def teacher(image, image_from_crop):
        """The person whose hips are in the center of the square; ears are never confident."""
        middle = geometry.transform_points(image_from_crop, np.full((1, 2), (SIZE - 1) / 2))[0]
        keypoints = min(truth, key=lambda k: np.linalg.norm(k[[11, 12]].mean(0) - middle))
        confidence = np.where(np.isin(np.arange(17), (3, 4)), 0.1, 0.9)
        seen.append(keypoints)
        return Pose(keypoints + 0.5, confidence)

    (tmp_path / "new").mkdir()
    document = label(dataset, teacher, {}, tmp_path / "new")
    assert seen
    write_json(tmp_path / "annotations/person_keypoints_new.json", document)
    again = open_dataset(f"coco:{tmp_path}:new")
    assert [p.path.resolve() for p in again.images] == [p.path.resolve() for p in dataset.images]
    taught = 0
    for ours, theirs in zip(again.images, dataset.images, strict=True):
        of = [list(theirs.bboxes[:, 0].round(2)).index(b) for b in ours.bboxes[:, 0].round(2)]
        body = theirs.visibility[of, 5:] > 0
        assert np.array_equal(ours.visibility[:, 5:] > 0, body)
        gap = np.abs(ours.keypoints - theirs.keypoints[of]).max(-1)
        assert gap[:, 5:][body].max() < 0.01
        from_teacher = np.abs(gap[:, :3] - 0.5).max(-1) < 0.01
        assert not ours.visibility[from_teacher, 3:5].any()
        taught += from_teacher.sum()
    assert taught == len({tuple(k.ravel()) for k in seen})


def test_a_detectors_box_where_one_fits(scenes, tmp_path):
    dataset, _ = scenes
    bbox = dataset.images[0].bboxes[0]
    near, far = bbox + np.float32(2), bbox + np.float32(1000)
    blind = lambda image, image_from_crop: Pose(np.full((17, 2), -1e3), np.zeros(17))  # noqa: E731
    document = label(dataset, blind, {0: np.stack([far, near])}, tmp_path)
    boxes = [a["bbox"] for a in document["annotations"] if a["image_id"] == 1]
    assert geometry.xywh_from_xyxy(near).round(2).tolist() in np.round(boxes, 2).tolist()
    assert json.dumps(document)


def test_a_missing_teacher(tmp_path):
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(UserError, match="no such file"):
        Teacher(str(tmp_path / "net.tflite"))
