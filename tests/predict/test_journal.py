"""JSON lines: everything comes back, half a line does no harm, resuming goes on where it was."""

import json

import numpy as np
import pytest
from found_people import found

from rmpe_jax.errors import UserError
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import PicturePoses, coco_records
from rmpe_jax.predict.journal import Journal, read_journal
from rmpe_jax.skeletons import COCO, MPII

PICTURES = [
    found("a.jpg", 2),
    PicturePoses('odd "ñ"\n\udce9.jpg', (7, 5), Poses.none(17)),
    found("c.jpg", 3, seed=2),
]


@pytest.fixture
def path(tmp_path):
    with Journal(tmp_path / "new/poses.jsonl", COCO) as journal:
        for picture in PICTURES:
            journal.add(picture)
    return tmp_path / "new/poses.jsonl"


def test_round_trip(path):
    back = list(read_journal(path, COCO))
    assert [picture[:2] for picture in back] == [picture[:2] for picture in PICTURES]
    for ours, theirs in zip(PICTURES, back, strict=True):
        for a, b in zip(ours.poses, theirs.poses, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, atol=6e-4)
        for a, b in zip(coco_records(ours, COCO), coco_records(theirs, COCO), strict=True):
            assert b.pop("bbox") == pytest.approx(a.pop("bbox"), abs=1.1e-3)
            assert a == b


def test_lines_say_what_they_hold(path):
    lines = path.read_text().splitlines()
    assert len(lines) == 3
    first = json.loads(lines[0])
    assert first | {"people": 0} == {
        "name": "a.jpg",
        "height": 480,
        "width": 640,
        "skeleton": "coco",
        "people": 0,
    }
    assert [set(person) for person in first["people"]] == 2 * [
        {"keypoints", "score", "bbox", "bbox_score"}
    ]
    np.testing.assert_allclose(
        [person["bbox"] for person in first["people"]], PICTURES[0].poses.bboxes, atol=1e-3
    )


def test_each_line_is_there_once_added(tmp_path):
    path = tmp_path / "poses.jsonl"
    with Journal(path, COCO) as journal:
        for count, picture in enumerate(PICTURES, 1):
            journal.add(picture)
            assert len(list(read_journal(path, COCO))) == count


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_resuming_after_a_cut(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    assert [picture.name for picture in read_journal(path, COCO)] == [p.name for p in PICTURES[:2]]
    with Journal(path, COCO, resume=True) as journal:
        assert journal.done == {picture.name for picture in PICTURES[:2]}
        journal.add(PICTURES[2])
    assert [picture.name for picture in read_journal(path, COCO)] == [p.name for p in PICTURES]


def test_without_resuming_a_journal_begins_anew(path):
    with Journal(path, COCO) as journal:
        assert journal.done == set()
    assert list(read_journal(path, COCO)) == []


def test_resuming_what_is_not_there(tmp_path):
    with Journal(tmp_path / "poses.jsonl", COCO, resume=True) as journal:
        assert journal.done == set()
        journal.add(PICTURES[0])
    assert len(list(read_journal(tmp_path / "poses.jsonl", COCO))) == 1


def test_another_skeleton_is_refused(path):
    with pytest.raises(UserError, match=r"line 1 has poses of the skeleton 'coco', not 'mpii'"):
        Journal(path, MPII, resume=True)
    assert len(list(read_journal(path, COCO))) == 3


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", "3"])
def test_other_files_are_refused(path, line):
    before = path.read_text() + line + "\n"
    path.write_text(before)
    with pytest.raises(UserError, match="line 4 is not a picture's JSON"):
        list(read_journal(path, COCO))
    with pytest.raises(UserError, match="line 4"):
        Journal(path, COCO, resume=True)
    assert path.read_text() == before


def test_wrong_numbers_of_joints_are_refused(path):
    path.write_text(path.read_text().replace('"coco"', '"mpii"'))
    with pytest.raises(UserError, match="line 1 is not a picture's JSON"):
        list(read_journal(path, MPII))


def test_nan_is_not_written(tmp_path):
    path = tmp_path / "poses.jsonl"
    joints, person = found(num_people=1), found(num_people=1)
    joints.poses.keypoints[0, 5] = np.nan
    person.poses.scores[0] = np.nan
    with Journal(path, COCO) as journal:
        journal.add(joints)
        with pytest.raises(UserError, match="not a finite number"):
            journal.add(person)
    (picture,) = read_journal(path, COCO)
    assert (picture.poses.keypoints[0, 5] == 0).all()
    assert picture.poses.keypoint_scores[0, 5] == 0


def test_places_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "file/poses.jsonl", COCO)
    with pytest.raises(UserError, match="cannot be read"):
        list(read_journal(tmp_path / "none.jsonl", COCO))
