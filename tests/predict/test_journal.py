"""The journal: round trip, incomplete lines, resuming, errors."""

import json
import os

import numpy as np
import pytest
from found_people import found

from rmpe_jax.errors import UserError
from rmpe_jax.inference.poses import Poses
from rmpe_jax.predict.formats import ImagePoses, coco_records
from rmpe_jax.predict.journal import Journal, read_journal
from rmpe_jax.skeletons import COCO, MPII

RESULTS = [
    found("a.jpg", 2),
    ImagePoses('odd "ñ"\n\udce9.jpg', (7, 5), Poses.none(17)),
    found("c.jpg", 3, seed=2),
]


@pytest.fixture
def path(tmp_path):
    with Journal(tmp_path / "new/poses.jsonl", COCO) as journal:
        for result in RESULTS:
            journal.add(result)
    return tmp_path / "new/poses.jsonl"


def test_round_trip(path):
    back = list(read_journal(path, COCO))
    assert [result[:2] for result in back] == [result[:2] for result in RESULTS]
    for ours, theirs in zip(RESULTS, back, strict=True):
        for a, b in zip(ours.poses, theirs.poses, strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            np.testing.assert_allclose(a, b, atol=6e-4)
        for a, b in zip(coco_records(ours, COCO), coco_records(theirs, COCO), strict=True):
            assert b.pop("bbox") == pytest.approx(a.pop("bbox"), abs=1.1e-3)
            assert a == b


def test_times_of_a_webcam(tmp_path):
    with Journal(tmp_path / "poses.jsonl", COCO) as journal:
        journal.add(RESULTS[0]._replace(time=1.23456))
        journal.add(RESULTS[2])
    assert [result.time for result in read_journal(tmp_path / "poses.jsonl", COCO)] == [1.235, None]


def test_content_of_lines(path):
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
        [person["bbox"] for person in first["people"]], RESULTS[0].poses.bboxes, atol=1e-3
    )


def test_lines_are_complete_when_added(tmp_path):
    path = tmp_path / "poses.jsonl"
    with Journal(path, COCO) as journal:
        for count, result in enumerate(RESULTS, 1):
            journal.add(result)
            assert len(list(read_journal(path, COCO))) == count


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_resuming_after_a_cut(path, cut):
    path.write_bytes(path.read_bytes()[:-cut])
    assert [result.name for result in read_journal(path, COCO)] == [p.name for p in RESULTS[:2]]
    with Journal(path, COCO, resume=True) as journal:
        assert journal.done == {result.name for result in RESULTS[:2]}
        journal.add(RESULTS[2])
    assert [result.name for result in read_journal(path, COCO)] == [p.name for p in RESULTS]


def test_without_resume_a_new_journal_is_started(path):
    with Journal(path, COCO) as journal:
        assert journal.done == set()
    assert list(read_journal(path, COCO)) == []


def test_resuming_a_missing_file(tmp_path):
    with Journal(tmp_path / "poses.jsonl", COCO, resume=True) as journal:
        assert journal.done == set()
        journal.add(RESULTS[0])
    assert len(list(read_journal(tmp_path / "poses.jsonl", COCO))) == 1


def test_another_skeleton_raises(path):
    with pytest.raises(UserError, match=r"line 1 has poses of the skeleton 'coco', not 'mpii'"):
        Journal(path, MPII, resume=True)
    assert len(list(read_journal(path, COCO))) == 3


def lines_of(path):
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize(
    "damage",
    [
        lambda line: b"nonsense\n",
        lambda line: b"\n",
        lambda line: bytes(len(line) - 1) + b"\n",
        lambda line: line[: len(line) // 2] + line,  # a part of a line, whose rest is lost
    ],
)
def test_a_damaged_line_is_skipped_and_done_again(path, damage, caplog):
    first, second, third = lines_of(path)
    path.write_bytes(first + damage(second) + third + third[:9])
    assert [result.name for result in read_journal(path, COCO)] == ["a.jpg", "c.jpg"]
    message = (
        f"{path}: damaged lines are skipped: 1 (the first is line 2); --resume does them again"
    )
    assert caplog.messages == [message]
    with Journal(path, COCO, resume=True) as journal:
        assert journal.done == {"a.jpg", "c.jpg"}
        assert path.read_bytes() == first + third
        journal.add(RESULTS[1])
    assert path.read_bytes() == first + third + second
    assert caplog.messages == 2 * [message]
    assert list(path.parent.iterdir()) == [path]  # no temporary file is left


def test_a_journal_that_cannot_be_rewritten_keeps_its_lines(path, monkeypatch):
    first, second, third = lines_of(path)
    path.write_bytes(before := first + b"nonsense\n" + second + third)

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        Journal(path, COCO, resume=True)
    assert path.read_bytes() == before


def test_a_file_without_any_json_raises(path):
    path.write_text("some\ntext\n")
    for read in (lambda: list(read_journal(path, COCO)), lambda: Journal(path, COCO, resume=True)):
        with pytest.raises(UserError, match="line 1 does not have the poses of an image"):
            read()
    assert path.read_text() == "some\ntext\n"


@pytest.mark.parametrize("line", ["[]", "{}", "3"])
def test_other_json_raises(path, line):
    before = path.read_text() + line + "\n"
    path.write_text(before)
    with pytest.raises(UserError, match="line 4 does not have the poses of an image"):
        list(read_journal(path, COCO))
    with pytest.raises(UserError, match="line 4"):
        Journal(path, COCO, resume=True)
    assert path.read_text() == before


def test_wrong_numbers_of_joints_raise(path):
    path.write_text(path.read_text().replace('"coco"', '"mpii"'))
    with pytest.raises(UserError, match="line 1 does not have the poses of an image"):
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
    (result,) = read_journal(path, COCO)
    assert (result.poses.keypoints[0, 5] == 0).all()
    assert result.poses.keypoint_scores[0, 5] == 0


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux")
def test_a_full_disk_is_one_clear_line():
    line = "^/dev/full cannot be written \\(No space left on device\\): make room"
    with pytest.raises(UserError, match=line), Journal("/dev/full", COCO) as journal:
        journal.add(RESULTS[0])


def test_paths_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        Journal(tmp_path / "file/poses.jsonl", COCO)
    with pytest.raises(UserError, match="cannot be read"):
        list(read_journal(tmp_path / "none.jsonl", COCO))
