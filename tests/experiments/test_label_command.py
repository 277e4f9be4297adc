"""`rmpe label` from files to files: the labeled dataset is one to train on."""

import dataclasses
import json
import pathlib

import bright
import cv2
import jax
import numpy as np
import pytest
from pycocotools.coco import COCO as CocoApi
from tiny_sets import coco_annotation, coco_document, mpii_entry, write_coco, write_json, write_mpii

from rmpe_jax import cli
from rmpe_jax.config import default_config, parse_config
from rmpe_jax.data import synthetic
from rmpe_jax.data.labels import MergeRule
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.sources import open_source
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.experiments.found_people import ModelSource, PeopleFinder
from rmpe_jax.experiments.label import FileSource, label_dataset
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO
from rmpe_jax.training.detection_task import open_labeled_images

HIPS = ("left_hip", "right_hip")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """Three synthetic scenes, everybody annotated."""
    folder = tmp_path_factory.mktemp("scenes")
    synthetic.write_coco_folder(folder, range(3))
    return folder


def write_poses(path, dataset, move=0.0, joint_score=0.9) -> pathlib.Path:
    """The annotated poses as those of a model, moved by some pixels."""
    results = []
    for record in dataset.images:
        n, k = record.visibility.shape
        scores = np.full((n, k), joint_score)
        poses = record.keypoints + np.float32(move)
        ids = [record.image_id] * n
        results += coco_results(ids, poses, scores, np.full(n, 0.8), record.bboxes)
    return write_json(path, results)


def forget(path: pathlib.Path, joints, people=()) -> None:
    """Removes joints from all annotations of a file, and people with their numbers."""
    document = json.loads(path.read_text())
    annotations = [a for i, a in enumerate(document["annotations"]) if i not in people]
    for annotation in annotations:
        rows = np.reshape(annotation["keypoints"], (-1, 3))
        rows[joints] = 0
        annotation["keypoints"] = rows.ravel().tolist()
        annotation["num_keypoints"] = int((rows[:, 2] > 0).sum())
    document["annotations"] = annotations
    path.write_text(json.dumps(document))


def test_poses_of_a_file_fill_in_what_is_not_annotated(scenes, tmp_path, capsys):
    """Facial joints, and a person, that the annotations lack come back."""
    truth = open_dataset(f"coco:{scenes}")
    write_poses(tmp_path / "poses.json", truth)
    path = tmp_path / "annotations/person_keypoints.json"
    path.parent.mkdir()
    path.write_text((scenes / "annotations/person_keypoints.json").read_text())
    forget(path, slice(0, 5), people=(0,))
    (tmp_path / "images").symlink_to(scenes / "images")
    out = tmp_path / "out"
    argv = ["label", f"coco:{tmp_path}", "--out", str(out), "--name", "new"]
    assert cli.main([*argv, "--poses", str(tmp_path / "poses.json")]) == 0
    labeled = open_dataset(f"coco:{out}:new")
    assert [r.path.resolve() for r in labeled.images] == [r.path.resolve() for r in truth.images]
    assert labeled.image_ids == truth.image_ids
    rows = {
        tuple(b.round(1)): (v, k)
        for r in labeled.images
        for b, v, k in zip(r.bboxes, r.visibility, r.keypoints, strict=True)
    }
    num_labeled = 0
    for record in truth.images:
        size = np.array(record.declared_size)
        for bbox, visibility, keypoints in zip(
            record.bboxes, record.visibility, record.keypoints, strict=True
        ):
            found, points = rows[tuple(bbox.round(1))]
            inside = ((keypoints > 0) & (keypoints < size - 1)).all(-1)
            expected = (visibility > 0) & (inside | (np.arange(17) >= 5))
            assert (found[expected] > 0).all()
            np.testing.assert_allclose(points[expected], keypoints[expected], atol=2e-3)
            num_labeled += int(found[:5].sum() > 0)
    assert num_labeled > 3
    api = CocoApi(str(out / "annotations/person_keypoints_new.json"))
    annotations = api.loadAnns(api.getAnnIds())
    assert len(annotations) == sum(len(r.bboxes) for r in truth.images)
    for annotation in annotations:
        scores, joints = annotation["keypoint_scores"], annotation["keypoints"]
        assert [s > 0 for s in scores] == [v > 0 for v in joints[2::3]]
        assert set(scores) <= {0, 0.9, 1}
    output = capsys.readouterr().out
    assert f"coco:{out}:new" in output.splitlines()[0]
    assert "people added" in output
    assert "joints kept" in output
    assert "+0.00 in x, +0.00 in y (pixels of the crop)" in output.replace("-0.00", "+0.00")
    assert len(open_source((f"coco:{out}:new",), COCO)) == len(annotations)


def test_an_alignment_that_is_wrong_is_reported(scenes, tmp_path, caplog):
    """A hundredth of the box is about half a crop pixel of 192."""
    truth = open_dataset(f"coco:{scenes}")
    crop = CropSpec((256, 192))
    scale = np.median([crop.image_from_crop(r.bboxes)[:, 0, 0].mean() for r in truth.images])
    poses = write_poses(tmp_path / "poses.json", truth, move=(0.8 * scale, 0.0))
    source = FileSource(str(poses))
    report = label_dataset(f"coco:{scenes}", tmp_path / "out", "new", source, MergeRule())
    assert 0.4 < report.offsets.mean[0] < 1.5
    assert any("crop pixels aside in x" in message for message in caplog.messages)


@pytest.mark.parametrize("prefer", ["annotations", "model"])
def test_a_model_predicts_in_the_boxes_of_annotated_people_and_of_others(
    tmp_path, bright_network, prefer
):
    """Three bright spots, of which the first is annotated: all joints are at the spots."""
    centers = [(60, 60), (160, 70), (260, 60)]
    image = bright.spots((120, 320), centers)
    box = bright.boxes_around(centers[:1]).bboxes[0].tolist()
    bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
    keypoints = np.zeros((17, 3))
    keypoints[:6] = (63, 57, 2)
    annotation = coco_annotation(5, 7, bbox=bbox, keypoints=keypoints.ravel().tolist())
    document = coco_document() | {"annotations": [annotation | {"num_keypoints": 6}]}
    document["images"] = [{"id": 7, "file_name": "7.png", "height": 120, "width": 320}]
    write_coco(tmp_path, document=document)
    cv2.imwrite(str(tmp_path / "mini/7.png"), image)
    source = ModelSource(bright.pose_model(), detector=bright.find_spots)
    rule = MergeRule(prefer=prefer)
    report = label_dataset(f"coco:{tmp_path}:mini", tmp_path / "out", "", source, rule)
    assert (report.counts.matched, report.counts.added) == (1, 2)
    (record,) = open_dataset(f"coco:{tmp_path}/out:mini").images
    assert record.person_ids.tolist() == [5, 6, 7]
    for person, center in enumerate(centers):
        known = 6 if person == 0 and prefer == "annotations" else 0
        assert np.abs(record.keypoints[person, known:] - center).max() < 2.5
        np.testing.assert_array_equal(record.keypoints[person, :known], keypoints[:known, :2])
    boxes = json.loads(report.detections.read_text())
    assert [b["image_id"] for b in boxes] == [7, 7, 7]
    run = default_config()
    run.model.task = "detection"
    run.data.train = (f"coco:{tmp_path}/out:mini",)
    run.data.detections = (str(report.detections),)
    data = parse_config(run).data
    images = open_labeled_images(data, {data.train[0]: open_dataset(data.train[0])})
    assert len(images[0]["labels"].bboxes) == 3


def test_people_are_found_alike_in_parts_of_a_dataset(tmp_path, bright_network):
    """Also in parts whose images cannot be read, or have nobody."""
    write_coco(tmp_path)
    (tmp_path / "mini/7.png").write_bytes(b"no image")
    dataset = open_dataset(f"coco:{tmp_path}:mini")
    assert sorted(len(record.bboxes) for record in dataset.images)[0] == 0
    find = PeopleFinder(ModelSource(bright.pose_model()))
    parts = [dataclasses.replace(dataset, images=(record,)) for record in dataset.images]
    whole, found = find(dataset), [image for part in parts for image in find(part)]
    assert [isinstance(image, str) for image in whole] == [r.image_id == 7 for r in dataset.images]
    jax.tree.map(np.testing.assert_array_equal, found, whole)


def test_boxes_of_a_file(tmp_path, bright_network):
    """Only those with a score of .4 are looked into; all are written."""
    write_coco(tmp_path)
    boxes = [
        {"image_id": 9, "category_id": 1, "bbox": [5, 5, 20, 40], "score": 0.5},
        {"image_id": 9, "category_id": 1, "bbox": [50, 5, 20, 40], "score": 0.3},
    ]
    path = write_json(tmp_path / "boxes.json", boxes)
    source = ModelSource(bright.pose_model(), detections=str(path))
    rule = MergeRule(min_score=0.0)
    report = label_dataset(f"coco:{tmp_path}:mini", tmp_path / "out", "new", source, rule)
    assert report.counts.added == 1
    assert json.loads(report.detections.read_text()) == boxes
    again = open_dataset(f"coco:{tmp_path}/out:new").images[-1]
    np.testing.assert_array_equal(again.bboxes, [[5, 5, 25, 45]])


def test_mpii_becomes_coco(tmp_path):
    """Names as ids become numbers, ids start at 1, hips are the model's, others stay."""
    data = f"mpii:{write_mpii(tmp_path)}:mini"
    given = open_dataset(data)
    joints = np.tile([40.0, 30.0, 0.9], (17, 1)).ravel().tolist()
    poses = [{"image_id": "a", "annotation": 0, "keypoints": joints, "bbox": [1, 1, 9, 9]}]
    source = FileSource(str(write_json(tmp_path / "poses.json", poses)))
    rule = MergeRule(from_model=HIPS)
    report = label_dataset(data, tmp_path / "out", "", source, rule)
    labeled = open_dataset(f"coco:{tmp_path}/out:mini")
    assert labeled.image_ids == [1, 2]
    assert sorted(i for r in labeled.images for i in r.person_ids) == [1, 2, 3]
    assert report.counts.matched == 1
    record, old = labeled.images[0], given.images[0]
    hips = [COCO.index(hip) for hip in HIPS]
    np.testing.assert_array_equal(record.keypoints[0, hips], [[40, 30]] * 2)
    assert not record.visibility[1, hips].any()
    knee = "left_knee"
    np.testing.assert_allclose(
        record.keypoints[:, COCO.index(knee)],
        old.keypoints[:, given.skeleton.index(knee)],
        atol=1e-3,
    )


def test_unreadable_images_are_left_out_and_reported(tmp_path, capsys):
    write_coco(tmp_path)
    (tmp_path / "mini/7.png").write_bytes(b"no image")
    poses = write_json(tmp_path / "poses.json", [])
    argv = ["label", f"coco:{tmp_path}:mini", "--out", str(tmp_path / "out"), "--poses", str(poses)]
    assert cli.main(argv) == 0
    output = capsys.readouterr().out
    assert "skipped: unreadable images" in output
    assert "mini/7.png is not an image" in output
    assert "no joint of the model is near an annotated one" in output
    assert open_dataset(f"coco:{tmp_path}/out:mini").image_ids == [8, 9]


def test_nothing_is_overwritten(tmp_path):
    write_coco(tmp_path)
    before = (tmp_path / "annotations/person_keypoints_mini.json").read_bytes()
    source = FileSource(str(write_json(tmp_path / "poses.json", [])))
    with pytest.raises(UserError, match=r"person_keypoints_mini.json exists: remove it, or choose"):
        label_dataset(f"coco:{tmp_path}:mini", tmp_path, "", source, MergeRule())
    assert (tmp_path / "annotations/person_keypoints_mini.json").read_bytes() == before
    with pytest.raises(UserError, match=r"'\.\./new' cannot name a dataset"):
        label_dataset(f"coco:{tmp_path}:mini", tmp_path, "../new", source, MergeRule())


def test_a_model_without_the_joints(tmp_path):
    from rmpe_jax.skeletons import MPII, get_skeleton

    write_mpii(tmp_path, entries=[mpii_entry(0, "a.jpg")])
    poses = str(write_json(tmp_path / "poses.json", []))
    for skeleton, rule, says in (
        (get_skeleton("unnamed_17"), MergeRule(), "have no joint of coco"),
        (MPII, MergeRule(from_model=("nose",)), "mpii joints of the model have no nose"),
    ):
        with pytest.raises(UserError, match=says):
            label_dataset(
                f"mpii:{tmp_path}:mini", tmp_path / "out", "", FileSource(poses, skeleton), rule
            )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--poses", "p", "--model", "m"], "--model is for a model, but the poses are those of"),
        (["--poses", "p", "--flip-test"], "--flip-test is for a model"),
        (["--poses", "p", "--beam-options", "--a b"], "--beam-options is for a model"),
        (["--skeleton", "mpii"], "--skeleton gives the joints of --poses"),
        (["--detector", "builtin", "--boxes", "b"], "two sources of boxes: give one of them"),
    ],
)
def test_options_that_exclude_each_other(options, says, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["label", "lsp:x", "--out", "o", *options])
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


def test_every_second_image_is_held_out(scenes, tmp_path):
    truth = open_dataset(f"coco:{scenes}")
    source = FileSource(str(write_poses(tmp_path / "poses.json", truth)))
    out = tmp_path / "out"
    label_dataset(f"coco:{scenes}", out, "new", source, MergeRule(), hold_out=2)
    first, held_out, third = truth.images
    kept, other = (open_dataset(f"coco:{out}:{name}") for name in ("new", "new_held_out"))
    assert kept.image_ids == [first.image_id, third.image_id]
    assert other.image_ids == [held_out.image_id]
    np.testing.assert_array_equal(other.images[0].person_ids, held_out.person_ids)
    assert other.images[0].path.resolve() == held_out.path.resolve()


def test_boxes_are_refitted_to_those_of_a_detector(scenes, tmp_path):
    """The first person's box grows; a box that fits nobody changes nothing."""
    truth = open_dataset(f"coco:{scenes}")
    record = truth.images[0]
    x1, y1, x2, y2 = record.bboxes[0].tolist()
    boxes = [[x1 - 2, y1 - 3, x2 - x1 + 4, y2 - y1 + 6], [x1, y1, 2, 2]]
    detections = [
        {"image_id": record.image_id, "category_id": 1, "bbox": box, "score": 0.9} for box in boxes
    ]
    source = FileSource(
        str(write_poses(tmp_path / "poses.json", truth)),
        detections=str(write_json(tmp_path / "boxes.json", detections)),
    )
    out = tmp_path / "out"
    report = label_dataset(f"coco:{scenes}", out, "new", source, MergeRule(), refit=True)
    found = open_dataset(f"coco:{out}:new").images[0]
    np.testing.assert_allclose(found.bboxes[0], (x1 - 2, y1 - 3, x2 + 2, y2 + 3), atol=0.01)
    np.testing.assert_allclose(found.bboxes[1:], record.bboxes[1:], atol=0.01)
    np.testing.assert_allclose(found.area, record.area)
    assert len(json.loads(report.detections.read_text())) == 2


def test_refitting_needs_boxes(capsys):
    with pytest.raises(SystemExit):
        cli.main(["label", "coco:x", "--out", "y", "--poses", "z", "--refit-boxes"])
    assert "give --detector or --boxes" in capsys.readouterr().err
