import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_sets import (
    coco_annotation,
    coco_document,
    encode,
    exif_orientation,
    mpii_entry,
    raster,
    write_coco,
    write_lsp,
    write_mpii,
)

from rmpe_jax.data import inspection
from rmpe_jax.data.inspection import (
    Findings,
    Suspicion,
    inspect_dataset,
    inspect_detections,
    sample_sizes,
    summary_table,
    suspicious_bboxes,
    suspicious_people,
    suspicious_size,
)
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, LSP

SIZE = (480, 640)  # height, width
# Four joints of a person in the box (100, 100, 200, 300), whose longer side is 200.
JOINTS = [(110.0, 120.0), (190.0, 120.0), (150.0, 200.0), (150.0, 290.0)]
BBOX = (100.0, 100.0, 200.0, 300.0)


def suspicion(joints=JOINTS, bbox=BBOX, visibility=(2, 2, 1, 2), size=SIZE) -> Suspicion | None:
    """The suspicion of one person."""
    found = suspicious_people(
        np.float32([joints]), np.uint8([visibility]), np.float64([bbox]), np.array([size])
    )
    assert sum(int(flags[0]) for flags in found.values()) <= 1
    return next((reason for reason, flags in found.items() if flags[0]), None)


def moved(joints, x: float, y: float) -> list:
    return [(a + x, b + y) for a, b in joints]


def test_a_person_inside_of_box_and_image():
    assert suspicion() is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"joints": [(x / 640, y / 480) for x, y in JOINTS]}, Suspicion.KEYPOINT_FRACTIONS),
        ({"bbox": [v / 640 for v in BBOX]}, Suspicion.BBOX_FRACTIONS),
        ({"joints": moved(JOINTS, 1e6, 1e6)}, Suspicion.KEYPOINTS_OUTSIDE_IMAGE),
        ({"joints": [(-x, -y) for x, y in JOINTS]}, Suspicion.KEYPOINTS_OUTSIDE_IMAGE),
        ({"joints": [*JOINTS[:3], (150.0, 1e6)]}, Suspicion.KEYPOINTS_OUTSIDE_IMAGE),
        ({"joints": moved(JOINTS, 300, 0)}, Suspicion.KEYPOINTS_OUTSIDE_BBOX),
        ({"bbox": (5000.0, 5000.0, 5050.0, 5090.0)}, Suspicion.BBOX_OUTSIDE_IMAGE),
        ({"bbox": (0.0, 0.0, 1e30, 1e30)}, Suspicion.BBOX_OUTSIDE_IMAGE),
        ({"bbox": (-200.0, 0.0, 90.0, 400.0)}, Suspicion.BBOX_OUTSIDE_IMAGE),
        ({"size": (110, 640)}, Suspicion.BBOX_OUTSIDE_IMAGE),
    ],
)
def test_a_person_of_another_frame(changes, expected):
    assert suspicion(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        # Joints may be outside of the image by 2 % of 640 pixels.
        ({"joints": [(-12.7, 150.0), *JOINTS[1:]]}, None),
        ({"joints": [(-12.9, 150.0), *JOINTS[1:]]}, Suspicion.KEYPOINTS_OUTSIDE_IMAGE),
        ({"joints": [(150.0, 492.7), *JOINTS[1:]]}, None),
        ({"joints": [(150.0, 492.9), *JOINTS[1:]]}, Suspicion.KEYPOINTS_OUTSIDE_IMAGE),
        # More than half of the joints outside of the box by 25 % of 200 pixels.
        ({"joints": [(251.0, 150.0)] * 2 + JOINTS[:2]}, None),
        ({"joints": [(251.0, 150.0)] * 3 + JOINTS[:1]}, Suspicion.KEYPOINTS_OUTSIDE_BBOX),
        ({"joints": [(249.0, 150.0)] * 3 + JOINTS[:1]}, None),
        ({"joints": [(150.0, 351.0)] * 3 + JOINTS[:1]}, Suspicion.KEYPOINTS_OUTSIDE_BBOX),
        ({"joints": [(49.0, 150.0)] * 3 + JOINTS[:1]}, Suspicion.KEYPOINTS_OUTSIDE_BBOX),
        # Half of the box outside of the image.
        ({"bbox": (-99.0, 100.0, 101.0, 300.0)}, None),
        ({"bbox": (-101.0, 100.0, 99.0, 300.0)}, Suspicion.BBOX_OUTSIDE_IMAGE),
        # Labels in a corner are no fractions if they reach beyond 1.5 pixels.
        ({"joints": [(0.0, 0.0)] * 3 + [(1.0, 1.6)], "bbox": (0.0, 0.0, 20.0, 20.0)}, None),
        (
            {"joints": [(0.0, 0.0)] * 3 + [(1.0, 1.4)], "bbox": (0.0, 0.0, 20.0, 20.0)},
            Suspicion.KEYPOINT_FRACTIONS,
        ),
    ],
)
def test_the_margins(changes, expected):
    assert suspicion(**changes) == expected


def test_joints_without_a_label_do_not_matter():
    anywhere = [(1e9, -1e9)] * 3 + JOINTS[2:3]
    assert suspicion(anywhere, visibility=(0, 0, 0, 1)) is None
    assert suspicion(anywhere, visibility=(0, 0, 0, 0)) is None
    assert suspicion(anywhere, visibility=(0, 0, 2, 1)) == Suspicion.KEYPOINTS_OUTSIDE_IMAGE


@given(st.lists(st.sampled_from(["fine", "outside", "fractions"]), min_size=1, max_size=9))
def test_each_person_is_judged_alone(kinds):
    joints = {"fine": JOINTS, "outside": moved(JOINTS, 900, 0), "fractions": [(0.5, 0.5)] * 4}
    n = len(kinds)
    found = suspicious_people(
        np.float32([joints[kind] for kind in kinds]),
        np.full((n, 4), 2, np.uint8),
        np.tile(BBOX, (n, 1)),
        np.tile(SIZE, (n, 1)),
    )
    outside = found.pop(Suspicion.KEYPOINTS_OUTSIDE_IMAGE)
    fractions = found.pop(Suspicion.KEYPOINT_FRACTIONS)
    np.testing.assert_array_equal(outside, [kind == "outside" for kind in kinds])
    np.testing.assert_array_equal(fractions, [kind == "fractions" for kind in kinds])
    assert not np.any(list(found.values()))


def test_boxes_of_corners_read_as_sizes():
    """(x1, y1, x2, y2) read as (x, y, width, height): those in the lower right half stick out."""
    corners = np.array([[10.0, 10, 60, 90], [400, 300, 500, 460], [300, 100, 500, 400]])
    read = np.concatenate([corners[:, :2], corners[:, :2] + corners[:, 2:]], 1)
    found = suspicious_bboxes(read, np.tile(SIZE, (3, 1)))
    np.testing.assert_array_equal(found[Suspicion.BBOX_OUTSIDE_IMAGE], [False, True, False])


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        ((640, 480), None),
        ((642, 478), None),
        ((643, 480), Suspicion.RESIZED_IMAGE),
        ((1280, 960), Suspicion.RESIZED_IMAGE),
        ((480, 640), Suspicion.TURNED_IMAGE),
    ],
)
def test_sizes(declared, expected):
    assert suspicious_size(declared, (480, 640)) == expected


def coco(tmp_path, change=lambda annotation: None, people: int = 10, **image_changes):
    """A dataset of one image with people, of whom the first three are changed."""
    document = coco_document()
    document["images"] = [document["images"][0] | image_changes]
    document["annotations"] = [coco_annotation(i, 7) for i in range(people)]
    for annotation in document["annotations"][:3]:
        change(annotation)
    return open_dataset(f"coco:{write_coco(tmp_path, document=document)}:mini")


def inspected(dataset, skeleton=COCO):
    return inspect_dataset(dataset, skeleton, sample_sizes(dataset))


def as_fractions(annotation) -> None:
    annotation["keypoints"] = (np.array(annotation["keypoints"]) / 80).tolist()
    annotation["keypoints"][2::3] = [2] * 17


def test_a_dataset_without_faults(tmp_path, caplog):
    found = inspected(coco(tmp_path))
    assert (found.images, found.people, found.joints) == (1, 10, 170)
    assert (found.labels.inspected, found.sizes.inspected) == (10, 1)
    assert found.all_used
    found.require_people("train on")
    found.require_few(0.0, "")
    found.warn()
    assert caplog.records == []


def test_suspicious_people_are_an_error_or_a_warning(tmp_path, caplog):
    found = inspected(coco(tmp_path, as_fractions))
    line = (
        "coco/mini: 3 of 10 people have labels that do not fit their image: joints in fractions of "
        "the image instead of pixels (3); the first: annotation 0 of 7.png"
    )
    with pytest.raises(UserError) as error:
        found.require_few(0.29, "--flag=1")
    assert str(error.value) == (
        f"{line}; give joints and boxes (COCO: x, y, width, height) in pixels of the stored image, "
        "or go on with --flag=1"
    )
    found.require_few(0.3, "--flag=1")
    assert caplog.records == []
    found.warn()
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, line)
    assert not found.all_used


def test_a_warning_from_one_percent(caplog):
    for inspected, warned in ((101, False), (100, True)):
        findings = Findings("people", inspected)
        findings.add(Suspicion.BBOX_FRACTIONS, ["annotation 1"])
        findings.warn("a")
        assert bool(caplog.records) == warned


def test_only_joints_of_the_skeleton_count(tmp_path):
    """The nose is far away; LSP does not have it."""
    dataset = coco(tmp_path, lambda a: a.update(keypoints=[9000, 0, 2, *a["keypoints"][3:]]))
    assert inspected(dataset, COCO).labels.suspicious == 3
    assert inspected(dataset, LSP).labels.suspicious == 0
    assert inspected(dataset, LSP).joints == 10 * 12


def test_only_boxes_count_without_a_skeleton(tmp_path):
    dataset = coco(tmp_path, lambda a: a.update(keypoints=[0] * 51, num_keypoints=0))
    found = inspected(dataset, None)
    assert (found.people, found.joints, found.unlabeled) == (10, 0, 0)
    assert inspected(dataset).unlabeled == 3
    dataset = coco(tmp_path, lambda a: as_fractions(a) or a.update(bbox=[900.0, 0.0, 9.0, 9.0]))
    assert inspected(dataset, None).labels.counts == {Suspicion.BBOX_OUTSIDE_IMAGE: 3}


def test_those_who_are_skipped_are_counted_and_not_inspected(tmp_path):
    changes = iter([{"keypoints": [0] * 51}, {"iscrowd": 1}, {"bbox": [4.0, 5.0, 0.0, 9.0]}])
    dataset = coco(tmp_path, lambda a: a.update({"bbox": [9e3, 0.0, 9.0, 9.0]} | next(changes)))
    found = inspected(dataset)
    assert (found.people, found.unlabeled, found.crowds, found.no_area) == (7, 1, 1, 1)
    assert (found.labels.inspected, found.labels.suspicious) == (7, 0)
    assert not found.all_used


@pytest.mark.parametrize("extension", ["png", "jpg"])
def test_images_of_another_size_than_declared(tmp_path, extension):
    path = tmp_path / "mini" / f"7.{extension}"
    dataset = coco(tmp_path, file_name=path.name, width=160, height=120)
    assert inspected(dataset).sizes.counts == {Suspicion.RESIZED_IMAGE: 1}
    with pytest.raises(UserError) as error:
        inspected(dataset).require_few(0.2, "--flag")
    assert f"(1); the first: {path} is 80x60 instead of 160x120; use the image" in str(error.value)


def test_turned_copies(tmp_path):
    """A JPEG is declared as viewers show it, by its EXIF orientation, which is not applied."""
    dataset = coco(tmp_path, file_name="7.jpg", width=60, height=80)
    encoded = encode(raster(0), ".jpg")
    turned = encoded[:2] + exif_orientation(6) + encoded[2:]
    (tmp_path / "mini" / "7.jpg").write_bytes(turned)
    with pytest.raises(UserError) as error:
        inspected(dataset).require_few(0.2, "--flag")
    assert "width and height exchanged, as in turned copies (1)" in str(error.value)
    assert "EXIF orientation is not applied" in str(error.value)


def test_without_a_declared_size_the_files_are_looked_at(tmp_path):
    """MPII declares none: labels of images twice as large."""
    entries = [mpii_entry(seed, f"{seed}.png") for seed in range(6)]
    for entry in entries:
        entry["joints"] = (2 * np.array(entry["joints"])).tolist()
        entry["bbox"] = [2 * v for v in entry["bbox"]]
    dataset = open_dataset(f"mpii:{write_mpii(tmp_path, entries=entries)}:mini")
    found = inspected(dataset, dataset.skeleton)
    assert (found.labels.inspected, found.labels.suspicious, found.sizes.inspected) == (6, 6, 0)
    unknown = inspect_dataset(dataset, dataset.skeleton, {0: (60, 80)})
    assert (unknown.people, unknown.labels.inspected, unknown.labels.suspicious) == (6, 1, 1)


def test_the_sizes_of_some_images_are_read(tmp_path, monkeypatch):
    write_lsp(tmp_path, people=30)
    dataset = open_dataset(f"lsp:{tmp_path}")
    assert sample_sizes(dataset) == {i: (60, 80) for i in range(30)}
    monkeypatch.setattr(inspection, "SAMPLE", 4)
    assert list(sample_sizes(dataset)) == [0, 9, 19, 29]
    dataset.images[0].path.unlink()
    dataset.images[9].path.write_bytes(b"no image")
    assert list(sample_sizes(dataset)) == [19, 29]


def test_images_without_people_are_not_read(tmp_path):
    dataset = open_dataset(f"coco:{write_coco(tmp_path)}:mini")
    assert list(sample_sizes(dataset)) == [0, 1]


def test_nobody_to_train_on(tmp_path):
    unlabeled = coco(tmp_path, lambda a: a.update(keypoints=[0] * 51), people=3)
    line = r"^coco/mini has no people to train on: 3 people without labeled joints; use another"
    with pytest.raises(UserError, match=line):
        inspected(unlabeled).require_people("train on")
    crowds = coco(tmp_path, lambda a: a.update(iscrowd=1), people=3)
    with pytest.raises(UserError, match="to evaluate on: 3 crowds;"):
        inspected(crowds, None).require_people("evaluate on")


def test_boxes_of_a_detector(tmp_path):
    dataset = open_dataset(f"coco:{write_coco(tmp_path)}:mini")
    good, out = [4.0, 5.0, 60.0, 50.0], [70.0, 50.0, 170.0, 150.0]
    index = np.array([0, 0, 1, 2])
    found = inspect_detections(dataset, index, np.array([good, good, good, good]) / 80, {})
    assert (found.inspected, found.counts) == (4, {Suspicion.BBOX_FRACTIONS: 4})
    found = inspect_detections(dataset, index, np.array([good, good, out, good]), {})
    with pytest.raises(UserError) as error:
        found.require_few("boxes.json", 0.2, "--flag")
    assert str(error.value) == (
        "boxes.json: 1 of 4 boxes do not fit their image: boxes mostly outside of the image (1); "
        "the first: [70, 50, 100, 100] on 8.png; give x, y, width, height in pixels of the stored "
        "image, or go on with --flag"
    )
    wider = {1: (200, 200)}
    assert not inspect_detections(dataset, index, np.array([good, good, out, good]), wider).counts


def test_boxes_on_images_of_unknown_size_are_not_inspected(tmp_path):
    dataset = open_dataset(f"mpii:{write_mpii(tmp_path)}:mini")
    bboxes = np.full((2, 4), 0.5)
    assert inspect_detections(dataset, np.array([0, 1]), bboxes, {1: (60, 80)}).inspected == 1


def test_the_table():
    rows = {"people": 1234, "crowds": 0, "joints": 7}
    table = summary_table([("a", rows), ("coco/b", rows | {"people": 5, "joints": 0})])
    assert table.splitlines() == [
        "            a  coco/b",
        "people  1,234       5",
        "joints      7       0",
    ]


def test_real_datasets_are_not_suspicious(shared_data):
    for spec in ("coco:{}/coco:train2017", "coco:{}/coco:val2017", "mpii:{}/mpii:valid"):
        dataset = open_dataset(spec.format(shared_data))
        sizes = {i: inspection._read_size(record) for i, record in enumerate(dataset.images)}
        found = inspect_dataset(dataset, dataset.skeleton, sizes)
        assert found.labels.inspected == found.people >= 400
        assert found.labels.suspicious == found.sizes.suspicious == 0


def test_real_boxes_of_corners_are_an_error(shared_data, tmp_path):
    """COCO's boxes written as corners: 32 % are mostly outside of the image."""
    source = shared_data / "coco" / "annotations" / "person_keypoints_train2017.json"
    document = json.loads(source.read_text())
    for annotation in document["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "person_keypoints.json").write_text(json.dumps(document))
    found = inspect_dataset(open_dataset(f"coco:{tmp_path}"), COCO, {})
    assert 0.25 < found.labels.suspicious / found.labels.inspected < 0.4
    assert found.labels.counts.most_common(1)[0][0] == Suspicion.BBOX_OUTSIDE_IMAGE
