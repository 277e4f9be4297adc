"""Output formats: fields and numbers, compatibility with other programs, no NaN."""

import json

import numpy as np
import pytest
from found_people import found
from pycocotools.coco import COCO as CocoFile
from pycocotools.cocoeval import COCOeval

from rmpe_jax.errors import UserError
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict import formats
from rmpe_jax.skeletons import COCO, LSP, MPII, UNION


@pytest.mark.parametrize(
    ("name", "image_id"),
    [
        ("000000000139.jpg", 139),
        ("val2017/000000000139.jpg", 139),
        ("val2017\\000000000139.jpg", 139),
        ("15956.png", 15956),
        ("photo.jpg", "photo.jpg"),
        ("trip/photo_2.jpg", "trip/photo_2.jpg"),
        ("12a.jpg", "12a.jpg"),
        ("١٢.jpg", "١٢.jpg"),
        ("-3.jpg", "-3.jpg"),
        ("", ""),
    ],
)
def test_image_ids(name, image_id):
    assert formats.image_id_of(name) == image_id


def test_coco_records():
    result = found("000000000139.jpg", 3)
    records = formats.coco_records(result, COCO)
    assert [set(record) for record in records] == 3 * [
        {"image_id", "category_id", "keypoints", "score", "bbox", "bbox_score"}
    ]
    assert {(record["image_id"], record["category_id"]) for record in records} == {(139, 1)}
    poses = result.poses
    joints = np.array([record["keypoints"] for record in records]).reshape(3, 17, 3)
    np.testing.assert_allclose(joints[..., :2], poses.keypoints, atol=5.1e-4)
    np.testing.assert_allclose(joints[..., 2], poses.keypoint_scores, atol=6e-7)
    np.testing.assert_allclose([record["score"] for record in records], poses.scores, atol=6e-7)
    xywh = np.array([record["bbox"] for record in records])
    np.testing.assert_allclose(xywh[:, :2] + xywh[:, 2:], poses.bboxes[:, 2:], atol=1.1e-3)


def test_coco_records_have_cocos_joints_if_the_skeleton_has_them():
    result = found(num_people=1, num_keypoints=UNION.num_keypoints)
    (record,) = formats.coco_records(result, UNION)
    joints = np.array(record["keypoints"]).reshape(17, 3)
    for j, joint in enumerate(COCO.joints):
        expected = result.poses.keypoints[0, UNION.index(joint)]
        np.testing.assert_allclose(joints[j, :2], expected, atol=5.1e-4)


def test_coco_records_have_the_skeletons_joints_otherwise():
    (record,) = formats.coco_records(found(num_people=1, num_keypoints=16), MPII)
    assert len(record["keypoints"]) == 3 * 16


def test_cocos_evaluation_reads_the_file(tmp_path):
    """pycocotools gives AP 1 for people that are written as they are annotated."""
    results = [found(f"{i:012}.jpg", 2, seed=i) for i in (7, 8)]
    annotations = [
        {
            "id": 10 * image_id + i,
            "image_id": image_id,
            "category_id": 1,
            "iscrowd": 0,
            "area": 9000.0,
            "bbox": [0, 0, 100, 90],
            "num_keypoints": 17,
            "keypoints": np.insert(pose, 2, 2, -1).reshape(-1).tolist(),
        }
        for image_id, result in zip((7, 8), results, strict=True)
        for i, pose in enumerate(result.poses.keypoints.astype(float))
    ]
    images = [{"id": i, "width": 640, "height": 480} for i in (7, 8)]
    document = {"images": images, "annotations": annotations}
    document["categories"] = [{"id": 1, "name": "person"}]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    formats.write_coco(tmp_path / "results.json", results, COCO)
    truth = CocoFile(str(tmp_path / "truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(tmp_path / "results.json")), "keypoints")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1)


def test_alphapose_records():
    result = found("trip/1.jpg", 2)
    records = formats.alphapose_records(result)
    assert [list(record) for record in records] == 2 * [
        ["image_id", "category_id", "keypoints", "score", "box", "idx"]
    ]
    assert records[0]["image_id"] == "trip/1.jpg"
    assert records[0]["idx"] == [0.0]
    for record, joints, box, box_score in zip(
        records,
        result.poses.keypoint_scores,
        result.poses.bboxes,
        result.poses.bbox_scores,
        strict=True,
    ):
        expected = sum(joints) / 17 + box_score + 1.25 * max(joints)
        assert record["score"] == pytest.approx(expected, abs=1e-5)
        expected = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        np.testing.assert_allclose(record["box"], expected, atol=1e-3)


def test_alphapose_records_convert_to_coco(tmp_path):
    results = [found("000000000139.jpg", 2), found("b.jpg", 1, seed=1)]
    formats.write_alphapose(tmp_path / "alphapose-results.json", results, COCO)
    records = json.loads((tmp_path / "alphapose-results.json").read_text())
    back = formats.coco_from_alphapose(records)
    ours = [record for result in results for record in formats.coco_records(result, COCO)]
    assert [record["score"] for record in back] == [record["score"] for record in records]
    for record in ours:
        del record["score"], record["bbox_score"]
    for record in back:
        del record["score"]
    assert back == ours


def test_records_of_old_alphapose_have_no_box():
    record = {"image_id": "5.jpg", "category_id": 1, "keypoints": [1, 2, 0.5], "score": 2.5}
    assert formats.coco_from_alphapose([record]) == [record | {"image_id": 5}]


def openpose_joints(result, skeleton):
    document = formats.openpose_document(result, skeleton)
    assert document["version"] == 1.3
    return np.array([p["pose_keypoints_2d"] for p in document["people"]]).reshape(-1, 18, 3)


def test_openpose_order_and_neck():
    result = found(num_people=2)
    joints = openpose_joints(result, COCO)
    keypoints, scores = result.poses.keypoints, result.poses.keypoint_scores
    # OpenPose's names of its COCO model: RElbow 3, LWrist 7, REye 14, LEar 17, Neck 1.
    for theirs, ours in ((3, 8), (7, 9), (14, 2), (17, 3), (0, 0), (10, 16), (11, 11)):
        np.testing.assert_allclose(joints[:, theirs, :2], keypoints[:, ours], atol=5.1e-4)
        np.testing.assert_allclose(joints[:, theirs, 2], scores[:, ours], atol=6e-7)
    np.testing.assert_allclose(joints[:, 1, :2], keypoints[:, 5:7].mean(1), atol=1e-3)
    np.testing.assert_allclose(joints[:, 1, 2], scores[:, 5:7].mean(1), atol=1e-6)


def test_openpose_fields():
    (person,) = formats.openpose_document(found(num_people=1), COCO)["people"]
    assert person["person_id"] == [-1]
    assert len(person["pose_keypoints_2d"]) == 54
    others = [key for key in person if key not in ("person_id", "pose_keypoints_2d")]
    assert len(others) == 7
    assert all(person[key] == [] for key in others)


def test_openpose_joints_missing_in_a_skeleton_are_zeros():
    joints = openpose_joints(found(num_people=1, num_keypoints=14), LSP)
    assert (joints[0, [0, 14, 15, 16, 17]] == 0).all()
    assert (np.delete(joints[0], [0, 14, 15, 16, 17], 0)[:, 2] > 0).all()


def test_no_neck_without_both_shoulders():
    result = found(num_people=1)
    result.poses.keypoints[0, COCO.index("left_shoulder")] = np.nan
    assert (openpose_joints(result, COCO)[0, 1] == 0).all()


def test_openpose_files(tmp_path):
    names = ["a.jpg", "deep/a.jpg", "b.jpg", "b.png", "../up.jpg", "/abs/path.jpg", "c:\\win.jpg"]
    formats.write_openpose(tmp_path / "out", [found(name) for name in names], COCO)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        [
            "a_keypoints.json",
            "deep_a_keypoints.json",
            "b_keypoints.json",
            "b.png_keypoints.json",
            ".._up_keypoints.json",
            "abs_path_keypoints.json",
            "c:_win_keypoints.json",
        ]
    )
    document = json.loads((tmp_path / "out/a_keypoints.json").read_text())
    assert document == formats.openpose_document(found("a.jpg"), COCO)


def test_openpose_files_are_unique(tmp_path):
    names = ["a/b/c.jpg", "a_b/c.jpg", "a/b_c.jpg", "a_b_c.jpg"]
    formats.write_openpose(tmp_path, [found(name) for name in names], COCO)
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("write", [formats.write_coco, formats.write_alphapose])
def test_files_are_written_from_a_stream(write, tmp_path):
    """An image is written before the next is requested; an error leaves no file behind."""
    path = tmp_path / "results.json"

    def results():
        yield found("a.jpg", 40)
        (temporary,) = tmp_path.iterdir()
        assert temporary.name != path.name
        raise RuntimeError("power failure")

    with pytest.raises(RuntimeError, match="power failure"):
        write(path, results(), COCO)
    assert list(tmp_path.iterdir()) == []
    write(path, (found(f"{i}.jpg", i) for i in range(3)), COCO)
    assert len(json.loads(path.read_text())) == 3
    write(path, iter([]), COCO)
    assert json.loads(path.read_text()) == []


def test_joints_that_are_not_finite_are_missing(tmp_path):
    result = found(num_people=1)
    result.poses.keypoints[0, 3] = np.nan
    result.poses.keypoint_scores[0, 4] = np.inf
    (coco,), (alphapose,) = formats.coco_records(result, COCO), formats.alphapose_records(result)
    for record in (coco, alphapose):
        joints = np.array(record["keypoints"]).reshape(17, 3)
        assert (joints[3:5] == 0).all()
        assert np.isfinite([*joints.flat, record["score"]]).all()
    assert np.isfinite(openpose_joints(result, COCO)).all()


@pytest.mark.parametrize("write", [formats.write_coco, formats.write_alphapose])
def test_people_that_are_not_finite_raise(write, tmp_path):
    result = found(num_people=2)
    result.poses.bboxes[1, 0] = np.nan
    with pytest.raises(UserError, match="not a finite number"):
        write(tmp_path / "results.json", [result], COCO)
    assert list(tmp_path.iterdir()) == []


def test_no_people():
    result = formats.ImagePoses("a.jpg", (480, 640), Poses.none(17))
    assert formats.coco_records(result, COCO) == []
    assert formats.alphapose_records(result) == []
    assert formats.openpose_document(result, COCO) == {"version": 1.3, "people": []}


def test_openpose_files_of_deep_folders(tmp_path):
    """Two names of 300 characters that differ in the last character."""
    deep = "/".join(30 * ["été folder"])
    results = [found(name=f"{deep}/{name}.jpg") for name in "ab"]
    formats.write_openpose(tmp_path, results, COCO)
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 2
    assert all(name.startswith("été folder_été") for name in names)


@pytest.mark.parametrize("skeleton", [MPII, UNION], ids=["fewer joints", "more joints"])
@pytest.mark.parametrize("convert", [formats.coco_records, formats.openpose_document])
def test_poses_of_another_skeleton(convert, skeleton):
    with pytest.raises(UserError, match=r"a\.jpg: poses have 17 joints, skeleton .* has .*: give"):
        convert(found(), skeleton)
