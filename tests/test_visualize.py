"""Drawn poses and sheets: what is painted where; curves: what is read from which file."""

import json
import sys

import cv2
import numpy as np
import pytest

from rmpe_jax import visualize
from rmpe_jax.data.records import Picture, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.protocol import boxes_of
from rmpe_jax.skeletons import COCO

GRAY = np.full((240, 200, 3), 128, np.uint8)


def standing():
    """A person about 180 pixels high, in the picture's middle; the person's left is our right."""
    places = {"nose": (100, 35), "eye": (5, 30), "ear": (10, 32), "shoulder": (25, 60)}
    places |= {"elbow": (35, 95), "wrist": (38, 125), "hip": (16, 120), "knee": (18, 165)}
    places |= {"ankle": (18, 210)}
    pose = np.zeros((17, 2))
    for j, joint in enumerate(COCO.joints):
        x, y = places[joint.split("_")[-1]]
        pose[j] = {"left": (100 + x, y), "right": (100 - x, y)}.get(joint.split("_")[0], (x, y))
    return pose


def color_at(image, point):
    return tuple(int(v) for v in image[round(point[1]), round(point[0])])


def middle(pose, a, b):
    return (pose[COCO.index(a)] + pose[COCO.index(b)]) / 2


def test_sides_have_their_colours_and_the_image_stays():
    pose = standing()
    before = GRAY.copy()
    drawn = visualize.draw_poses(GRAY, pose[None], np.ones((1, 17)), COCO)
    np.testing.assert_array_equal(GRAY, before)
    assert drawn.shape == GRAY.shape
    assert drawn.dtype == np.uint8
    assert color_at(drawn, middle(pose, "left_hip", "left_knee")) == visualize.LEFT
    assert color_at(drawn, middle(pose, "right_hip", "right_knee")) == visualize.RIGHT
    assert color_at(drawn, middle(pose, "left_shoulder", "right_shoulder")) == visualize.CENTER
    assert color_at(drawn, (5, 5)) == (128, 128, 128)


def test_unsure_joints_and_their_limbs_are_not_drawn():
    pose = standing()
    scores = np.ones((1, 17))
    scores[0, COCO.index("left_ankle")] = 0.1
    drawn = visualize.draw_poses(GRAY, pose[None], scores, COCO)
    assert color_at(drawn, middle(pose, "left_knee", "left_ankle")) == (128, 128, 128)
    assert color_at(drawn, middle(pose, "right_knee", "right_ankle")) == visualize.RIGHT
    none = visualize.draw_poses(GRAY, pose[None], scores, COCO, threshold=1.1)
    np.testing.assert_array_equal(none, GRAY)


def test_lines_grow_with_the_person():
    drawn = [
        visualize.draw_poses(
            np.full((s * 240, s * 200, 3), 128, np.uint8),
            standing()[None] * s,
            np.ones((1, 17)),
            COCO,
        )
        for s in (2, 4)
    ]
    inked = [(image != 128).any(-1).mean() for image in drawn]
    assert inked[0] == pytest.approx(inked[1], rel=0.25)


def test_joints_far_outside_or_not_finite_do_no_harm():
    pose = np.stack([standing(), standing(), standing()])
    pose[0, 0] = (1e12, -1e12)
    pose[1, 5] = np.nan
    pose[2, 7] = np.inf
    drawn = visualize.draw_poses(GRAY, pose, np.ones((3, 17)), COCO)
    assert (drawn != GRAY).any()


def test_nobody():
    drawn = visualize.draw_poses(GRAY, np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO)
    np.testing.assert_array_equal(drawn, GRAY)


def test_boxes_are_drawn():
    drawn = visualize.draw_poses(
        GRAY, standing()[None], np.ones((1, 17)), COCO, np.array([[50.0, 20, 150, 220]])
    )
    assert color_at(drawn, (50, 25)) == visualize.BOX


def test_contact_sheet_places_tiles_in_rows():
    tiles = [np.full((40, 30, 3), value, np.uint8) for value in (10, 60, 110)]
    sheet = visualize.contact_sheet(tiles, columns=2)
    assert sheet.shape == (2 * 40 + 3 * 6, 2 * 30 + 3 * 6, 3)
    np.testing.assert_array_equal(sheet[6:46, 6:36], tiles[0])
    np.testing.assert_array_equal(sheet[6:46, 42:72], tiles[1])
    np.testing.assert_array_equal(sheet[52:92, 6:36], tiles[2])


def test_contact_sheet_fits_smaller_tiles_into_the_cell():
    small, large = np.zeros((20, 10, 3), np.uint8), np.zeros((60, 60, 3), np.uint8)
    sheet = visualize.contact_sheet([large, small], columns=2)
    dark = (sheet == 0).all(-1)
    assert dark[:, : 60 + 6].sum() == 60 * 60
    assert dark[:, 60 + 12 :].sum() == 60 * 30


def test_captions_are_written_under_their_tile_and_no_wider():
    tile = np.full((80, 120, 3), 128, np.uint8)
    plain = visualize.contact_sheet([tile, tile], 2, ["", ""])
    sheet = visualize.contact_sheet([tile, tile], 2, ["W" * 200, ""])
    rows, columns = np.nonzero((sheet != plain).any(-1))
    assert rows.min() >= 6 + 80
    assert columns.min() >= 6
    assert columns.max() <= 6 + 120


@pytest.fixture
def dataset(tmp_path):
    """Nine pictures of one person each; pictures get darker, to be told apart."""
    pictures = []
    for i in range(9):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((240, 200, 3), 250 - 20 * i, np.uint8))
        pictures.append(
            Picture(
                image_id=i,
                path=path,
                keypoints=standing()[None].astype(np.float32),
                visibility=np.full((1, 17), 2, np.uint8),
                bboxes=np.float32([[50, 20, 150, 220]]),
                area=np.float32([12000]),
                iscrowd=np.zeros(1, bool),
                head_sizes=np.float32([np.nan]),
                person_ids=np.array([i]),
            )
        )
    return PoseDataset("test/nine", COCO, tuple(pictures), tmp_path / "none.json")


def test_people_sheet_shows_best_median_worst(dataset, monkeypatch):
    rows = []
    whole = visualize.contact_sheet

    def spy(tiles, columns, captions):
        rows.append(captions)
        return whole(tiles, columns, captions)

    monkeypatch.setattr(visualize, "contact_sheet", spy)
    boxes = boxes_of(dataset, "gt")
    offset = np.array([4, 0, 8, 2, 6, 7, 5, 3, 1])
    poses = np.stack([standing() + 2 * o for o in offset])
    sheet = visualize.people_sheet(dataset, boxes, poses, np.ones((9, 17)), COCO, columns=2)
    shown = [[int(caption.split()[-1]) for caption in captions] for captions in rows]
    assert shown == [[1, 8], [7, 0], [2, 5]]
    assert rows[0][0] == "OKS 1.00  1"
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > sheet.shape[0] / 3


def test_people_sheet_with_people_not_found_and_few_people(dataset, monkeypatch):
    captions = []
    monkeypatch.setattr(visualize, "_write", lambda image, text, *_: captions.append(text))
    boxes = boxes_of(dataset, "gt")
    one = type(boxes)(*(getattr(boxes, f)[:1] for f in boxes.__dataclass_fields__))
    visualize.people_sheet(dataset, one, standing()[None], np.ones((1, 17)), COCO, columns=20)
    assert captions.count("not found  3") == 3
    assert captions.count("OKS 1.00  0") == 3


def test_people_sheet_of_nobody(dataset):
    nobody = PoseDataset("test/empty", COCO, (), dataset.annotations)
    with pytest.raises(UserError, match="nobody is annotated"):
        visualize.people_sheet(
            nobody, boxes_of(nobody, "gt"), np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO
        )


def test_real_people(coco_like, tmp_path):
    dataset, boxes, poses = coco_like
    sheet = visualize.people_sheet(dataset, boxes, poses, np.ones((len(boxes), 17)), COCO)
    cv2.imwrite(str(tmp_path / "sheet.png"), sheet[..., ::-1])
    assert sheet.std() > 20


@pytest.fixture
def coco_like(shared_data):
    from rmpe_jax.data.coco import read_coco

    dataset = read_coco(shared_data / "coco", "val2017")
    boxes = boxes_of(dataset, "gt")
    poses = [
        dataset.pictures[i].keypoints[p]
        for i, p in zip(boxes.picture_index, boxes.person_index, strict=True)
    ]
    return dataset, boxes, np.array(poses) + np.random.default_rng(0).normal(0, 5, (400, 17, 2))


def rows_of_training():
    for step in range(0, 600, 10):
        yield {"step": step, "train/loss": 1 / (step + 10), "train/accuracy": step / 600}
        if step % 100 == 90:
            yield {"step": step, "eval/gt/AP": step / 1000, "eval/mpii/PCKh": step / 10}


def test_learning_curves(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows_of_training()) + '{"step": 60')
    visualize.learning_curves(path, tmp_path / "curves.png")
    assert cv2.imread(str(tmp_path / "curves.png")).shape[1] > 2000  # four panels


def test_the_later_line_of_a_step_counts_and_nan_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = ['{"step": 1, "loss": 5}', '{"step": 2, "loss": NaN}', '{"step": 1, "loss": 3}']
    path.write_text("\n".join(lines))
    assert visualize._read_series(path) == {"loss": {1: 3.0}}


def test_smoothing_keeps_constants_and_means():
    np.testing.assert_allclose(visualize._smoothed(np.full(100, 3.0)), 3)
    values = np.arange(200.0)
    np.testing.assert_allclose(visualize._smoothed(values)[10:-10], values[10:-10])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"step": 1, "lr": 2}\n', "nothing to plot"),
        ("", "nothing to plot"),
        ('nonsense\n{"step": 1, "loss": 2}\n', "line 1 is not a step's JSON"),
        ('{"loss": 1}\n{"step": 1, "loss": 2}\n', "line 1 is not a step's JSON"),
    ],
)
def test_bad_metrics(tmp_path, content, message):
    (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(UserError, match=message):
        visualize.learning_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()


def test_missing_metrics(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        visualize.learning_curves(tmp_path / "none.jsonl", tmp_path / "curves.png")


def test_without_matplotlib(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(UserError, match=r"pip install 'rmpe_jax\[viz\]'"):
        visualize.learning_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
