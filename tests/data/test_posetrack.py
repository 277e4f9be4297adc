"""PoseTrack18's JSON: read, written, and what is wrong with such files."""

import json

import numpy as np
import pytest

from rmpe_jax.data.posetrack import posetrack_document, read_posetrack, write_posetrack
from rmpe_jax.data.tracks import TrackedFrame, TrackedPeople, TrackedVideo
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, MPII, POSETRACK

# The joints in the order of the files, as published.
NAMES = ["nose", "head_bottom", "head_top"] + [
    f"{side}_{part}"
    for part in ("ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for side in ("left", "right")
]


def document():
    """Two frames of a video, in the wrong order, one of them not annotated; and another video."""
    joints = np.c_[np.arange(34.0).reshape(17, 2) + 1, np.ones(17)]
    joints[3:5] = 0  # ears
    image = {"vid_id": "000342", "nframes": 2, "has_no_densepose": True}
    person = {"category_id": 1, "keypoints": joints.ravel().tolist(), "bbox": [1, 2, 30, 40]}
    return {
        "images": [
            image | {"id": 11, "frame_id": 11, "file_name": "images/val/a/000001.jpg",
                     "is_labeled": True, "ignore_regions_x": [[0, 9, 9]],
                     "ignore_regions_y": [[0, 0, 9]]},
            image | {"id": 10, "frame_id": 10, "file_name": "images/val/a/000000.jpg",
                     "is_labeled": False},
            {"id": 20, "frame_id": 20, "vid_id": "000343", "file_name": "images/val/b/000000.jpg"},
        ],
        "annotations": [
            person | {"id": 1100, "image_id": 11, "track_id": 0, "bbox_head": [5, 5, 30, 40]},
            person | {"id": 1101, "image_id": 11, "track_id": 3, "bbox_head": [0, 0, 0, 0]},
            person | {"id": 1102, "image_id": 11, "track_id": 4, "keypoints": []},
            person | {"id": 1103, "image_id": 11, "track_id": 5, "keypoints": [0] * 51},
            person | {"id": 2000, "image_id": 20},
        ],
        "categories": [{"id": 1, "name": "person", "keypoints": NAMES}],
    }  # fmt: skip


def read(content, tmp_path):
    path = tmp_path / "000342_mpii.json"
    path.write_text(json.dumps(content))
    return read_posetrack(path)


def test_videos_frames_and_people(tmp_path):
    first, second = read(document(), tmp_path)
    assert (first.name, second.name) == ("000342", "000343")
    assert first.skeleton == POSETRACK
    names = [frame.name for frame in first.frames]
    assert names == ["images/val/a/000000.jpg", "images/val/a/000001.jpg"]
    assert [frame.is_labeled for frame in first.frames + second.frames] == [False, True, True]
    people = first.frames[1].people
    assert people.ids.tolist() == [0, 3]  # people without joints are left out
    assert second.frames[0].people.ids.tolist() == [-1]
    np.testing.assert_array_equal(people.bboxes[0], [1, 2, 31, 42])
    np.testing.assert_array_equal(people.head_boxes[0], [5, 5, 35, 45])
    assert np.isnan(people.head_boxes[1]).all()
    np.testing.assert_array_equal(people.keypoints[0, 0], [1, 2])
    assert people.keypoint_scores[0].tolist() == [1, 1, 1, 0, 0, *[1] * 12]
    (region,) = first.frames[1].ignored
    np.testing.assert_array_equal(region, [[0, 0], [9, 0], [9, 9]])


def test_joints_are_found_by_name(tmp_path):
    content = document()
    order = np.random.default_rng(0).permutation(17)
    content["categories"][0]["keypoints"] = [NAMES[i] for i in order]
    for entry in content["annotations"]:
        if entry["keypoints"]:
            points = np.array(entry["keypoints"]).reshape(17, 3)
            entry["keypoints"] = points[order].ravel().tolist()
    ordered, expected = read(content, tmp_path), read(document(), tmp_path)
    np.testing.assert_array_equal(
        ordered[0].frames[1].people.keypoints, expected[0].frames[1].people.keypoints
    )


def test_scores_of_predictions(tmp_path):
    content = document()
    content["annotations"][0]["scores"] = [0.25] * 17
    people = read(content, tmp_path)[0].frames[1].people
    assert people.keypoint_scores[0].tolist() == [0.25, 0.25, 0.25, 0, 0, *[0.25] * 12]


def test_a_box_is_by_default_around_the_joints(tmp_path):
    content = document()
    del content["annotations"][0]["bbox"]
    people = read(content, tmp_path)[0].frames[1].people
    np.testing.assert_allclose(people.bboxes[0], [1 - 3.2, 2 - 3.2, 33 + 3.2, 34 + 3.2])


def video(skeleton, seed=0, name="clip"):
    rng = np.random.default_rng(seed)
    frames = []
    for number in range(3):
        n, k = number, skeleton.num_keypoints
        low, head = rng.uniform(0, 100, (n, 2)), rng.uniform(0, 100, (n, 2))
        people = TrackedPeople(
            rng.uniform(1, 300, (n, k, 2)),
            rng.choice([0.0, 0.5, 1.0], (n, k)),
            np.concatenate([low, low + 50], -1),
            np.concatenate([head, head + 20], -1),
            np.arange(n) + 7,
        )
        ignored = (rng.uniform(0, 9, (4, 2)),) if number == 1 else ()
        frames.append(TrackedFrame(f"{name}/{number}.jpg", people, number != 2, ignored))
    return TrackedVideo(name, skeleton, tuple(frames))


def test_what_is_written_is_read(tmp_path):
    videos = [video(POSETRACK), video(POSETRACK, 1, "other")]
    write_posetrack(tmp_path / "p.json", videos)
    found = read_posetrack(tmp_path / "p.json")
    assert [v.name for v in found] == ["000001", "000002"]
    for ours, theirs in zip(videos, found, strict=True):
        for a, b in zip(ours.frames, theirs.frames, strict=True):
            assert (a.name, a.is_labeled) == (b.name, b.is_labeled)
            known = a.people.keypoint_scores[..., None] > 0
            np.testing.assert_allclose(
                np.where(known, a.people.keypoints, 0), b.people.keypoints, atol=6e-4
            )
            for x, y in zip(a.people[1:], b.people[1:], strict=True):
                np.testing.assert_allclose(x, y, atol=6e-4)
            for x, y in zip(a.ignored, b.ignored, strict=True):
                np.testing.assert_allclose(x, y)


def test_more_than_the_ids_have_room_for():
    frame = TrackedFrame("a.jpg", TrackedPeople.none(17), True, ())
    with pytest.raises(UserError, match=r"long: .* room for 10,000 frames in a video, not for 10"):
        posetrack_document([TrackedVideo("long", POSETRACK, (frame,) * 10_001)])
    crowd = TrackedPeople.none(17)
    crowd = TrackedPeople(*(np.zeros((101, *values.shape[1:]), values.dtype) for values in crowd))
    with pytest.raises(UserError, match=r"full: .* room for 100 people in a frame, not for 101"):
        posetrack_document([TrackedVideo("full", POSETRACK, (frame._replace(people=crowd),))])


def test_what_is_written_has_the_published_names():
    content = posetrack_document([video(POSETRACK)])
    assert content["categories"][0]["keypoints"] == NAMES
    assert {"frame_id", "vid_id", "nframes", "file_name", "is_labeled"} <= content["images"][
        0
    ].keys()
    entry = content["annotations"][0]
    assert {"track_id", "image_id", "keypoints", "scores", "bbox", "bbox_head"} <= entry.keys()
    assert entry["id"] == 100 * entry["image_id"]


@pytest.mark.parametrize(
    ("skeleton", "missing"),
    [(COCO, {"head_bottom", "head_top"}), (MPII, {"nose", "left_ear", "right_ear"})],
    ids=lambda value: getattr(value, "name", ""),
)
def test_joints_of_another_skeleton(skeleton, missing):
    ours = video(skeleton)
    ours.frames[1].people.keypoint_scores[:] = 1
    entry = posetrack_document([ours])["annotations"][0]
    joints = dict(zip(NAMES, np.array(entry["keypoints"]).reshape(17, 3), strict=True))
    assert {name for name, joint in joints.items() if joint[2] == 0} == missing
    assert all((joints[name] == 0).all() for name in missing)
    wrist = ours.frames[1].people.keypoints[0, skeleton.index("left_wrist")]
    np.testing.assert_allclose(joints["left_wrist"][:2], wrist, atol=6e-4)


def test_people_without_a_track_have_no_track_id(tmp_path):
    ours = video(POSETRACK)
    ours.frames[1].people.ids[:] = -1
    write_posetrack(tmp_path / "p.json", [ours])
    assert read_posetrack(tmp_path / "p.json")[0].frames[1].people.ids.tolist() == [-1]


def test_a_folder(tmp_path):
    for name in ("b", "a"):
        write_posetrack(tmp_path / f"{name}.json", [video(POSETRACK, name=name)])
    assert [v.name for v in read_posetrack(tmp_path)] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty has no file \*\.json: give the folder"):
        read_posetrack(tmp_path / "empty")


def _set(path, value):
    def change(content):
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (_set(["images"], []), "annotation number 0 refers to image 11, which is not in 'images'"),
        (_set(["annotations", 1, "track_id"], 0), "image number 0: 'track_id' has 0 twice"),
        (_set(["annotations", 0, "track_id"], "x"), "annotation number 0 has track_id = 'x'"),
        (_set(["annotations", 0, "keypoints"], [1.0] * 45), "has 45 numbers in keypoints, not 51"),
        (_set(["annotations", 0, "scores"], [1.0] * 15), "has 15 numbers in scores, not 17"),
        (_set(["annotations", 0, "bbox_head"], [1.0]), "has 1 numbers in bbox_head, not 4"),
        (_set(["images", 0, "ignore_regions_y"], [[1]]), "ignore_regions_y that do not fit"),
        (_set(["images", 0, "file_name"], None), "image number 0 has file_name = None"),
        (_set(["categories", 0, "keypoints"], list(COCO.joints)), "not the 17 of posetrack"),
    ],
)
def test_files_that_cannot_be_read(change, says, tmp_path):
    content = document()
    change(content)
    with pytest.raises(UserError, match=f"^PoseTrack file [^\n]*{says}[^\n]*$"):
        read(content, tmp_path)


def test_a_file_without_images(tmp_path):
    with pytest.raises(UserError, match="has no images: give the annotations of a video"):
        read({"images": [], "annotations": []}, tmp_path)
    with pytest.raises(UserError, match=r"^no PoseTrack file .*: check the path$"):
        read_posetrack(tmp_path / "none.json")
