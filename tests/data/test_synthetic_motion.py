"""Clips of people in motion: deterministic, with exact identities, and plausible."""

import hashlib
import itertools
import subprocess
import sys

import numpy as np
import pytest

from rmpe_jax import skeletons
from rmpe_jax.data.synthetic import clip_detector, motion, paths, walking
from rmpe_jax.data.synthetic.anatomy import pose_body
from rmpe_jax.data.synthetic.clip_files import clip_video
from rmpe_jax.errors import UserError
from rmpe_jax.ops.geometry import box_iou

COCO = skeletons.COCO
FRAMES = 30


@pytest.fixture(scope="module")
def clips() -> list[motion.Clip]:
    return [motion.make_clip(seed, FRAMES) for seed in range(2)]


def _digest(clip: motion.Clip) -> str:
    poses = clip_detector.detect_poses(clip, 1)
    digest = hashlib.sha256()
    for values in (clip.keypoints, clip.visibility, clip.bboxes, clip.head_boxes, clip.ids, *poses):
        digest.update(values.tobytes())
    return digest.hexdigest()


def test_a_seed_gives_the_same_clip_in_every_process():
    code = (
        "import sys; sys.path.insert(0, 'tests/data'); from test_synthetic_motion import _digest;"
        "from rmpe_jax.data.synthetic import motion; print(_digest(motion.make_clip(5, 4)));"
        "assert 'jax' not in sys.modules"
    )
    root = skeletons.__file__.rsplit("/", 3)[0]
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    assert run.stdout.strip() == _digest(motion.make_clip(5, 4))
    assert _digest(motion.make_clip(6, 4)) != _digest(motion.make_clip(5, 4))


def test_shapes_and_types(clips):
    for clip in clips:
        assert clip.keypoints.shape == (FRAMES, 6, 17, 2)
        assert clip.visibility.shape == (FRAMES, 6, 17)
        assert clip.visibility.dtype == np.uint8
        assert clip.bboxes.shape == clip.head_boxes.shape == (FRAMES, 6, 4)
        assert clip.ids.shape == clip.hidden.shape == (FRAMES, 6)
        assert (clip.keypoints.dtype, clip.bboxes.dtype) == (np.float32, np.float32)


def test_a_person_has_one_id_or_is_absent(clips):
    for clip in clips:
        present = clip.ids == np.arange(1, 7)
        assert (present | (clip.ids == -1)).all()
        for values in (clip.keypoints, clip.visibility, clip.bboxes, clip.head_boxes, clip.hidden):
            assert not values[~present].any()
        assert ((clip.visibility == 2).sum(-1) >= 4)[present].all()
        assert 0.5 < present.mean() < 1


def test_labels_lie_in_the_image_and_in_the_box(clips):
    for clip in clips:
        size = np.array(clip.size[::-1])
        shown = clip.visibility == 2
        assert (clip.keypoints[clip.visibility > 0] >= -0.5).all()
        assert (clip.keypoints[clip.visibility > 0] <= size - 0.5).all()
        assert (clip.keypoints + 0.51 >= clip.bboxes[..., None, :2])[shown].all()
        assert (clip.keypoints + 0.49 <= clip.bboxes[..., None, 2:])[shown].all()
        nose, is_labeled = clip.keypoints[..., 0, :], clip.visibility[..., 0] > 0
        middle = (clip.head_boxes[..., :2] + clip.head_boxes[..., 2:]) / 2
        side = clip.head_boxes[..., 2] - clip.head_boxes[..., 0]
        assert (np.linalg.norm(nose - middle, axis=-1) < 0.6 * side)[is_labeled].all()


def test_images_change_only_where_people_move(clips):
    images = list(itertools.islice(motion.clip_images(0, FRAMES), 10, 12))
    changed = (images[0] != images[1]).any(-1)
    assert images[0].shape == (*motion.CLIP_SIZE, 3)
    clip = clips[0]
    assert (clip.ids[10:12] > 0).sum() >= 8
    for box in clip.bboxes[10:12].reshape(-1, 4).astype(int):
        x1, y1, x2, y2 = box
        assert x2 <= x1 or changed[y1:y2, x1:x2].any()
    absent = (clip.ids[10:12] < 0).any()
    for x1, y1, x2, y2 in clip.bboxes[10:12].reshape(-1, 4).astype(int):
        changed[max(y1 - 4, 0) : y2 + 4, max(x1 - 4, 0) : x2 + 4] = False  # blurred
    assert absent or not changed.any()


@pytest.mark.slow
def test_people_cross_hide_each_other_leave_and_come_back():
    clips = [motion.make_clip(seed, 100) for seed in range(2)]
    assert 3 < np.mean([clip.crossings for clip in clips]) < 15
    hidden = np.concatenate([clip.hidden[clip.ids > 0] for clip in clips])
    assert 0.03 < (hidden > 0.3).mean() < 0.2
    back = 0
    for clip in clips:
        present = (clip.ids > 0).astype(int)
        for person in range(6):
            gone = np.flatnonzero(np.diff(present[:, person]) == -1)
            came = np.flatnonzero(np.diff(present[:, person]) == 1)
            at_edge = [
                box[0] <= 1 or box[2] >= clip.size[1] - 1 for box in clip.bboxes[gone, person]
            ]
            back += sum(
                edge and (came > start).any() for start, edge in zip(gone, at_edge, strict=True)
            )
    assert back >= 1


def test_what_a_crossing_is():
    def count(x, y=0.0):
        """Of a person who stands at 50 and one who is at x; boxes of 20 x 60 pixels."""
        x = np.stack([np.full(len(x), 50.0), np.array(x, float)], -1)
        low = np.stack([x - 10, np.array([0, y]) + np.zeros_like(x)], -1)
        return motion.count_crossings(np.concatenate([low, low + np.array([20, 60])], -1), x)

    passing = [20, 35, 45, 55, 65, 80]
    assert count(passing) == 1
    assert count(passing, y=55.0) == 0  # the boxes hardly overlap
    assert count([20, 40, 48, 52, 48, 40, 20]) == 0  # goes back
    assert count(passing + passing[::-1]) == 2
    assert count([45, 52, 80]) == 1  # overlaps from the start
    assert count([20, 80]) == 0  # too fast to overlap


def test_walking_feet_stand_on_the_ground_and_limbs_swing():
    walker = walking.sample_walker(np.random.default_rng(0))
    knees, wrists = [], []
    for cycle in np.linspace(0, 1, 24, endpoint=False):
        pose = walking.walking_pose(walker, cycle, 1.4, 90.0, 0.0)
        points = pose_body(walker.build, pose).points
        knees.append(pose.knees)
        wrists.append(points["left_wrist"][0] - points["right_wrist"][0])
        assert (pose.knees >= 0).all()
    assert 50 < np.max(knees) < 70  # as in normal walking
    assert max(wrists) > 0.05 > -0.05 > min(wrists)
    standing = walking.walking_pose(walker, 0.3, 0.0, 90.0, 0.0)
    np.testing.assert_allclose(standing.hips[0], standing.hips[1])


def test_paths_are_those_of_people():
    rng = np.random.default_rng(0)
    found = paths.sample_paths(rng, np.full(8, 1.3), 1000, 25.0, 0.6)
    assert found.places.shape == (1000, 8, 2)
    steps = np.linalg.norm(np.diff(found.places, axis=0), axis=-1) * 25
    assert steps.max() < 2.5  # meters per second
    assert 0.8 < np.median(steps) < 1.4
    turns = np.abs(np.diff(found.headings, axis=0))
    assert turns.max() <= 270 / 25 + 1e-6
    outside = np.abs(found.places[..., 0]) > 0.6 * found.places[..., 1] + 0.3
    assert (np.diff(outside.astype(int), axis=0) == -1).any(0).all()  # everybody comes back
    distance = np.linalg.norm(found.places[:, :, None] - found.places[:, None], axis=-1)
    assert (distance[:, ~np.eye(8, dtype=bool)] > 0.3).mean() > 0.995


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": -1}, "a clip's seed is -1"),
        ({"num_frames": 0}, "a clip of 0 frames"),
        ({"size": (32, 320)}, "a clip of size"),
        ({"num_people": 0}, "a clip of 0 people"),
        ({"num_people": 24}, "a clip of 24 people"),
        ({"fps": 0.0}, "a clip of 0.0 frames per second"),
    ],
)
def test_bad_arguments_get_one_line(changes, says):
    arguments = {"seed": 0, "num_frames": 2} | changes
    with pytest.raises(UserError, match=f"^{says}[^\n]*use [^\n]*$"):
        motion.make_clip(**arguments)
    with pytest.raises(UserError, match=f"^{says}"):
        next(motion.clip_images(**arguments))


def test_found_poses_are_imperfect_in_every_way(clips):
    best, hidden, counts, own, others = [], [], [], [], []
    for seed, clip in enumerate(clips):
        poses = clip_detector.detect_poses(clip, seed)
        assert (np.diff(poses.scores, axis=1)[poses.valid[:, 1:]] <= 0).all()
        for values in poses:
            assert np.isfinite(values).all()
            assert not values[~poses.valid].any()
        for frame, present in enumerate(clip.ids > 0):
            valid = poses.valid[frame]
            iou = box_iou(poses.bboxes[frame, valid], clip.bboxes[frame, present])
            best += iou.max(0, initial=0).tolist()
            hidden += clip.hidden[frame, present].tolist()
            counts.append(valid.sum() / max(present.sum(), 1))
            for person, pose in enumerate(iou.argmax(0) if iou.size else ()):
                truth = clip.keypoints[frame, present][person]
                box = clip.bboxes[frame, present][person]
                error = poses.keypoints[frame, valid][pose] - truth
                error = np.linalg.norm(error, axis=-1) / np.sqrt(
                    (box[2] - box[0]) * (box[3] - box[1])
                )
                flags = clip.visibility[frame, present][person]
                own += error[flags == 2].tolist()
                others += error[flags == 1].tolist()
    best, hidden = np.array(best), np.array(hidden)
    assert 0.85 < (best[hidden < 0.1] > 0.5).mean() < 0.97
    assert (best[hidden > 0.5] > 0.5).mean() < 0.75
    assert 1.2 < np.mean(counts) < 2.5  # doubles and false alarms
    assert 0.01 < np.median(own) < 0.08
    assert np.median(others) > 1.2 * np.median(own)


def test_errors_of_frames_that_follow_each_other_are_similar(clips):
    joint = COCO.index("left_shoulder")
    pairs = []
    for clip in clips:
        poses = clip_detector.detect_poses(clip, 0)
        errors = np.full((FRAMES, 6, 2), np.nan)
        for frame in range(FRAMES):
            iou = box_iou(poses.bboxes[frame], clip.bboxes[frame])
            sure = (iou.max(0) > 0.7) & (clip.visibility[frame, :, joint] == 2)
            offset = poses.keypoints[frame, iou.argmax(0), joint] - clip.keypoints[frame, :, joint]
            errors[frame, sure] = offset[sure]
        pairs.append(np.stack([errors[:-1].ravel(), errors[1:].ravel()]))
    before, after = np.concatenate(pairs, 1)
    known = np.isfinite(before) & np.isfinite(after)
    assert known.sum() > 100
    assert 0.15 < np.corrcoef(before[known], after[known])[0, 1] < 0.7


def test_more_poses_than_there_is_room_for(clips):
    few = clip_detector.detect_poses(clips[0], 0, max_poses=2)
    many = clip_detector.detect_poses(clips[0], 0)
    assert few.valid.shape == (FRAMES, 2)
    np.testing.assert_array_equal(few.scores, many.scores[:, :2])


def test_a_clip_as_a_video(clips):
    clip = clips[0]
    video = clip_video(clip, "walk")
    assert [frame.name for frame in video.frames[:2]] == ["walk/000000.jpg", "walk/000001.jpg"]
    for frame, ids in zip(video.frames, clip.ids, strict=True):
        assert frame.people.ids.tolist() == ids[ids > 0].tolist()
    people = video.frames[7].people
    np.testing.assert_array_equal(people.bboxes, clip.bboxes[7, clip.ids[7] > 0])
    assert set(np.unique(people.keypoint_scores)) <= {0.0, 1.0}
