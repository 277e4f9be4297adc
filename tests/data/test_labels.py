"""Each part of the rule by which a model's people and a dataset's are merged."""

import dataclasses
import pathlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmpe_jax.data.labels import FoundPeople, MergeRule, merge_labels
from rmpe_jax.data.readers.records import ImageRecord
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, MPII

K = COCO.num_keypoints
HIPS = ("left_hip", "right_hip")
IS_HIP = np.isin(COCO.joints, HIPS)
BOX = (100.0, 100.0, 200.0, 300.0)  # the longer side is 200
FAR_BOX = (400.0, 100.0, 500.0, 300.0)


def pose(box=BOX, shift=0.0) -> np.ndarray:
    """Joints on a spiral inside a box, all apart from each other."""
    angle = np.arange(K) * 2.4
    unit = (
        0.5 + 0.45 * np.sqrt((np.arange(K) + 1) / K)[:, None] * np.c_[np.cos(angle), np.sin(angle)]
    )
    x1, y1, x2, y2 = box
    return (unit * (x2 - x1, y2 - y1) + (x1, y1) + shift).astype(np.float32)


def annotate(people, size=(640, 480)) -> ImageRecord:
    """A record of people given as dicts; by default all joints of `pose(BOX)` are annotated."""
    n = len(people)
    visibility = [person.get("visibility", np.ones(K)) for person in people]
    boxes = np.array([person.get("bbox", BOX) for person in people], np.float64).reshape(n, 4)
    poses = [person.get("keypoints", pose(person.get("bbox", BOX))) for person in people]
    return ImageRecord(
        image_id=1,
        path=pathlib.Path("a.jpg"),
        keypoints=np.array(poses, np.float32).reshape(n, K, 2),
        visibility=np.array(visibility, np.uint8).reshape(n, K),
        bboxes=boxes,
        area=np.array([person.get("area", 1e4) for person in people]).reshape(n),
        iscrowd=np.array([person.get("iscrowd", False) for person in people], bool),
        head_sizes=np.full(n, np.nan, np.float32),
        person_ids=np.array([p.get("id", 10 + i) for i, p in enumerate(people)], np.int64),
        declared_size=size,
    )


def find(people) -> FoundPeople:
    """Found people given as dicts; by default `pose(BOX)`, a pixel aside, with scores of .9."""
    if not people:
        return FoundPeople.none(K)
    boxes = [person.get("bbox", BOX) for person in people]
    poses = [p.get("keypoints", pose(box, 1.0)) for p, box in zip(people, boxes, strict=True)]
    return FoundPeople(
        np.array(poses, np.float32),
        np.array([np.broadcast_to(p.get("scores", 0.9), K) for p in people], np.float32),
        np.array(boxes, np.float32),
        np.array([person.get("score", 0.8) for person in people], np.float32),
        np.array([person.get("id", -1) for person in people]),
    )


def merge(annotated, found, **changes):
    return merge_labels(annotate(annotated), find(found), MergeRule(**changes))


def only(*joints, value=1) -> np.ndarray:
    return np.where(np.isin(COCO.joints, joints), value, 0)


def test_annotated_joints_stay_and_others_come_from_the_model():
    face = [joint for joint in COCO.joints[:5]]
    labels = merge([{"visibility": 1 - only(*face)}], [{}])
    np.testing.assert_array_equal(labels.visibility[0], [2] * 5 + [1] * 12)
    np.testing.assert_array_equal(labels.keypoints[0, 5:], pose()[5:])
    np.testing.assert_array_equal(labels.keypoints[0, :5], pose(shift=1.0)[:5])
    np.testing.assert_allclose(labels.keypoint_scores[0], [0.9] * 5 + [1] * 12)
    assert labels.scores.tolist() == [1]
    counts = labels.counts
    assert (counts.annotated, counts.matched, counts.kept, counts.modeled) == (1, 1, 12, 5)
    assert (counts.unlabeled, counts.added, counts.disagreeing) == (0, 0, 0)


def test_joints_of_low_scores_stay_unlabeled():
    scores = np.where(np.arange(K) < 3, 0.29, 0.3).astype(np.float32)
    labels = merge([{"visibility": only("left_ankle")}], [{"scores": scores}], min_score=0.3)
    np.testing.assert_array_equal(labels.visibility[0], [0] * 3 + [2] * 12 + [1] + [2])
    assert not labels.keypoints[0, :3].any()
    assert not labels.keypoint_scores[0, :3].any()
    assert labels.counts.unlabeled == 3


def test_the_model_is_preferred_where_it_is_sure():
    scores = np.where(np.arange(K) < 4, 0.49, 0.5)
    labels = merge([{}], [{"scores": scores}], prefer="model", sure=0.5)
    np.testing.assert_array_equal(labels.visibility[0], [1] * 4 + [2] * 13)
    np.testing.assert_array_equal(labels.keypoints[0, :4], pose()[:4])
    np.testing.assert_array_equal(labels.keypoints[0, 4:], pose(shift=1.0)[4:])


@pytest.mark.parametrize("found", [[{}], [{"scores": 0.1}], []], ids=["sure", "unsure", "nobody"])
@pytest.mark.parametrize("prefer", ["annotations", "model"])
def test_some_joints_are_never_those_of_the_annotations(prefer, found):
    labels = merge([{}], found, prefer=prefer, from_model=HIPS)
    is_sure = bool(found) and not found[0]
    np.testing.assert_array_equal(labels.visibility[0, IS_HIP], 2 if is_sure else 0)
    expected = pose(shift=1.0)[IS_HIP] if is_sure else 0
    np.testing.assert_array_equal(labels.keypoints[0, IS_HIP], expected)
    assert labels.visibility[0, ~IS_HIP].all()


@pytest.mark.parametrize("prefer", ["annotations", "model"])
def test_disagreement_is_counted_and_the_preferred_joint_is_taken(prefer):
    """The limit is .15 of 200 pixels; a joint of which the model is not sure does not count."""
    keypoints = pose()
    keypoints[:3, 0] += (29, 31, 31)
    scores = np.where(np.arange(K) == 2, 0.4, 0.9)
    labels = merge([{}], [{"keypoints": keypoints, "scores": scores}], prefer=prefer)
    assert labels.counts.disagreeing == 1
    taken = (
        pose()
        if prefer == "annotations"
        else np.where([[j == 2] for j in range(K)], pose(), keypoints)
    )
    np.testing.assert_array_equal(labels.keypoints[0], taken)


def test_people_are_matched_by_id_before_boxes():
    """The box of the second is that of the first annotated person, but its id is another's."""
    people = [{"id": 3, "visibility": only("nose")}, {"id": 5, "bbox": FAR_BOX}]
    found = [{"id": -1, "score": 0.2}, {"id": 5, "bbox": BOX, "score": 0.9}]
    labels = merge(people, found)
    assert labels.found_index.tolist() == [0, 1]
    assert labels.counts.matched == 2


def test_the_best_overlap_is_matched():
    moved = tuple(v + 20.0 * (i % 2 == 0) for i, v in enumerate(BOX))  # IoU .67
    labels = merge([{"visibility": only("nose")}], [{"bbox": moved, "score": 1.0}, {"score": 0.1}])
    assert labels.found_index.tolist() == [1]
    assert labels.counts.repeated == 1


def test_boxes_with_little_overlap_do_not_match():
    moved = tuple(v + 40.0 * (i % 2 == 0) for i, v in enumerate(BOX))  # IoU .43
    labels = merge([{"visibility": only("nose")}], [{"bbox": moved, "keypoints": pose(FAR_BOX)}])
    assert labels.found_index.tolist() == [-1, 0]
    assert labels.counts.matched == 0


def test_others_are_added_behind_the_annotated_people():
    scores = np.where(np.arange(K) < 4, 0.9, 0.1)
    labels = merge([{"id": 7}], [{"bbox": FAR_BOX, "scores": scores, "score": 0.6}])
    assert labels.person_ids.tolist() == [7, 8]
    np.testing.assert_array_equal(labels.visibility[1], [2] * 4 + [0] * 13)
    np.testing.assert_allclose(labels.scores, [1, 0.6])
    np.testing.assert_array_equal(labels.bboxes[1], FAR_BOX)
    assert labels.area[1] == 100 * 200
    assert labels.counts.added == 1
    again = merge_labels(annotate([{"id": 7}]), find([{"bbox": FAR_BOX}]), MergeRule(), 100)
    assert again.person_ids.tolist() == [7, 100]


def test_others_with_few_certain_joints_are_left_out():
    found = [{"bbox": FAR_BOX, "scores": np.where(np.arange(K) < 3, 0.9, 0.1)}]
    labels = merge([{}], found)
    assert len(labels.bboxes) == 1
    assert labels.counts.unclear == 1
    assert len(merge([{}], found, min_joints=3).bboxes) == 2


def test_a_person_is_not_added_twice():
    """By the box, and by the joints in a much larger box."""
    large = (50.0, 50.0, 350.0, 400.0)
    found = [{}, {"bbox": large, "keypoints": pose(shift=2.0)}]
    found += [{"bbox": FAR_BOX, "score": s} for s in (0.5, 0.7)]
    labels = merge([{}], found)
    assert labels.found_index.tolist() == [0, 3]
    assert (labels.counts.repeated, labels.counts.added) == (2, 1)


def test_crowds_stay_as_they_are():
    crowd = {"iscrowd": True, "visibility": only(), "id": 4}
    labels = merge([crowd], [{}, {"id": 4, "bbox": FAR_BOX}], from_model=HIPS)
    assert labels.iscrowd.tolist() == [True, False]
    np.testing.assert_array_equal(labels.found_index, [-1, 0])
    np.testing.assert_array_equal(labels.bboxes[0], BOX)
    assert labels.counts.annotated == 0
    assert not labels.visibility[0].any()


def test_people_without_joints_need_as_many_as_others():
    box_only = {"visibility": only(), "area": 77.0}
    few, enough = (np.where(np.arange(K) < n, 0.9, 0.1) for n in (3, 4))
    labels = merge([box_only], [{"scores": few}])
    assert not labels.visibility.any()
    assert len(labels.bboxes) == 1
    labels = merge([box_only], [{"scores": enough}])
    assert (labels.visibility[0] == 2).sum() == 4
    assert (len(labels.bboxes), labels.area[0]) == (1, 77.0)
    np.testing.assert_array_equal(labels.bboxes[0], BOX)


def test_joints_outside_of_the_image_or_without_position_are_not_labeled():
    keypoints = pose()
    keypoints[0], keypoints[1], keypoints[2] = (-1, 5), (5, 479.6), np.nan
    found = [{"keypoints": keypoints}]
    labels = merge([{"visibility": only("left_ankle")}], found, min_score=0.0)
    np.testing.assert_array_equal(labels.visibility[0, :4], [0, 0, 0, 2])
    assert np.isfinite(labels.keypoints).all()
    record = annotate([{"visibility": only("left_ankle")}], size=None)
    labels = merge_labels(record, find(found), MergeRule())
    np.testing.assert_array_equal(labels.visibility[0, :4], [2, 2, 0, 2])


def test_an_image_without_people():
    labels = merge([], [])
    assert labels.keypoints.shape == (0, K, 2)
    assert labels.counts == type(labels.counts)()
    assert merge([], [{}]).person_ids.tolist() == [1]


def test_rules_that_cannot_be():
    with pytest.raises(UserError, match="'coco' has no joint 'hip'"):
        MergeRule(from_model=("hip",))
    with pytest.raises(UserError, match=r"found people have 16 joints, skeleton 'coco' has 17"):
        merge_labels(annotate([]), FoundPeople.none(MPII.num_keypoints), MergeRule())


@st.composite
def scenes(draw):
    """Annotated and found people in random places, who overlap often."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, m = draw(st.integers(0, 5)), draw(st.integers(0, 6))

    def box():
        corner = rng.uniform(0, 300, 2)
        return (*corner, *(corner + rng.uniform(20, 180, 2)))

    people = [
        {
            "bbox": box(),
            "visibility": rng.integers(0, 3, K) * rng.integers(0, 2),
            "iscrowd": rng.uniform() < 0.2,
            "id": 3 * i + 1,
        }
        for i in range(n)
    ]
    found = [
        {
            "bbox": people[rng.integers(n)]["bbox"] if n and rng.uniform() < 0.5 else box(),
            "scores": rng.uniform(0, 1, K),
            "score": rng.uniform(),
            "id": rng.choice([-1, *(p["id"] for p in people)]),
        }
        for _ in range(m)
    ]
    return annotate(people), find(found)


@given(scene=scenes(), prefer=st.sampled_from(["annotations", "model"]))
def test_nobody_is_lost_and_everything_is_accounted_for(scene, prefer):
    record, found = scene
    labels = merge_labels(record, found, MergeRule(prefer=prefer))
    n = len(record.bboxes)
    for name in ("bboxes", "area", "iscrowd", "person_ids"):
        np.testing.assert_array_equal(getattr(labels, name)[:n], getattr(record, name))
    assert len(set(labels.person_ids.tolist())) == len(labels.person_ids)
    used = labels.found_index[labels.found_index >= 0]
    assert len(set(used.tolist())) == len(used)
    counts = labels.counts
    of_crowds = np.isin(found.person_ids, record.person_ids[record.iscrowd]).sum()
    left = counts.repeated + counts.unclear + of_crowds
    assert counts.matched + counts.added + left == len(found.bboxes)
    assert counts.annotated + counts.added == (~labels.iscrowd).sum()
    assert counts.kept + counts.modeled == (labels.visibility[~labels.iscrowd] > 0).sum()
    assert not labels.keypoints[labels.visibility == 0].any()
    np.testing.assert_array_equal(labels.keypoint_scores > 0, labels.visibility > 0)


@given(scene=scenes())
def test_annotated_joints_are_kept(scene):
    record, found = scene
    labels = merge_labels(record, found, MergeRule(prefer="annotations"))
    known, n = record.visibility > 0, len(record.bboxes)
    np.testing.assert_array_equal(labels.keypoints[:n][known], record.keypoints[known])
    np.testing.assert_array_equal(labels.visibility[:n][known], record.visibility[known])
    assert labels.counts.kept == known[~record.iscrowd].sum()


@given(scene=scenes())
def test_merging_again_changes_nothing(scene):
    """With the labels as the annotations: no joint moves, and nobody is added."""
    record, found = scene
    labels = merge_labels(record, found, MergeRule())
    names = ("keypoints", "visibility", "bboxes", "area", "iscrowd", "person_ids")
    changes = {name: getattr(labels, name) for name in names}
    head_sizes = np.full(len(labels.area), np.nan, np.float32)
    again = dataclasses.replace(record, head_sizes=head_sizes, **changes)
    relabeled = merge_labels(again, found, MergeRule())
    assert relabeled.counts.added == 0
    known = labels.visibility > 0
    np.testing.assert_array_equal(relabeled.keypoints[known], labels.keypoints[known])
