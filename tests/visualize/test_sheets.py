"""Contact sheets: positions of the tiles, and choice of the people."""

import cv2
import numpy as np
import pytest
from standing_person import standing

from rmpe_jax.data.readers.records import ImageRecord, PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.skeletons import COCO
from rmpe_jax.visualize import sheets


def sheet_of(dataset, boxes, keypoints, keypoint_scores, skeleton, **options):
    predictions = PosePredictions(dataset, boxes, keypoints, keypoint_scores, skeleton)
    return sheets.people_sheet(predictions, **options)


def test_contact_sheet_places_tiles_in_rows():
    tiles = [np.full((40, 30, 3), value, np.uint8) for value in (10, 60, 110)]
    sheet = sheets.contact_sheet(tiles, columns=2)
    assert sheet.shape == (2 * 40 + 3 * 6, 2 * 30 + 3 * 6, 3)
    np.testing.assert_array_equal(sheet[6:46, 6:36], tiles[0])
    np.testing.assert_array_equal(sheet[6:46, 42:72], tiles[1])
    np.testing.assert_array_equal(sheet[52:92, 6:36], tiles[2])


def test_contact_sheet_fits_smaller_tiles_into_the_cell():
    small, large = np.zeros((20, 10, 3), np.uint8), np.zeros((60, 60, 3), np.uint8)
    sheet = sheets.contact_sheet([large, small], columns=2)
    dark = (sheet == 0).all(-1)
    assert dark[:, : 60 + 6].sum() == 60 * 60
    assert dark[:, 60 + 12 :].sum() == 60 * 30


def test_captions_are_written_under_their_tile_and_no_wider():
    tile = np.full((80, 120, 3), 128, np.uint8)
    plain = sheets.contact_sheet([tile, tile], 2, ["", ""])
    sheet = sheets.contact_sheet([tile, tile], 2, ["W" * 200, ""])
    rows, columns = np.nonzero((sheet != plain).any(-1))
    assert rows.min() >= 6 + 80
    assert columns.min() >= 6
    assert columns.max() <= 6 + 120


@pytest.fixture
def dataset(tmp_path):
    """Nine images of one person each; later images are darker, so they are distinguishable."""
    records = []
    for i in range(9):
        path = tmp_path / f"{i}.png"
        cv2.imwrite(str(path), np.full((240, 200, 3), 250 - 20 * i, np.uint8))
        records.append(
            ImageRecord(
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
    return PoseDataset("test/nine", COCO, tuple(records), tmp_path / "none.json")


def test_people_sheet_shows_best_median_worst(dataset, monkeypatch):
    rows = []
    contact_sheet = sheets.contact_sheet

    def spy(tiles, columns, captions):
        rows.append(captions)
        return contact_sheet(tiles, columns, captions)

    monkeypatch.setattr(sheets, "contact_sheet", spy)
    boxes = load_boxes(dataset, "gt")
    offset = np.array([4, 0, 8, 2, 6, 7, 5, 3, 1])
    poses = np.stack([standing() + 2 * o for o in offset])
    sheet = sheets.people_sheet(
        PosePredictions(dataset, boxes, poses, np.ones((9, 17)), COCO), columns=2
    )
    shown = [[int(caption.split()[-1]) for caption in captions] for captions in rows]
    assert shown == [[1, 8], [7, 0], [2, 5]]
    assert rows[0][0] == "OKS 1.00  1"
    assert sheet.dtype == np.uint8
    assert sheet.shape[1] > sheet.shape[0] / 3


def test_people_sheet_with_people_not_found_and_few_people(dataset, monkeypatch):
    captions = []
    monkeypatch.setattr(sheets, "_write", lambda image, text, *_: captions.append(text))
    boxes = load_boxes(dataset, "gt")
    columns = (boxes.image_index, boxes.bboxes, boxes.scores, boxes.person_index)
    one = type(boxes)(*(column[:1] for column in columns))
    sheets.people_sheet(
        PosePredictions(dataset, one, standing()[None], np.ones((1, 17)), COCO), columns=20
    )
    assert captions.count("not found  3") == 3
    assert captions.count("OKS 1.00  0") == 3


def test_people_in_unreadable_images_are_on_gray(dataset, monkeypatch):
    tiles = []
    monkeypatch.setattr(sheets, "contact_sheet", lambda drawn, *_: tiles.append(drawn) or drawn[0])
    dataset.images[0].path.write_bytes(b"no image")
    poses = np.repeat(standing()[None], 9, 0)
    poses[0] = np.nan
    sheet_of(dataset, load_boxes(dataset, "gt"), poses, np.ones((9, 17)), COCO, columns=1)
    worst = tiles[2][0].reshape(-1, 3)
    assert np.mean((worst == sheets._OUTSIDE_COLOR).all(-1)) > 0.9
    assert (worst == sheets.ANNOTATION_COLOR).all(-1).any()


def test_people_sheet_of_nobody(dataset):
    nobody = PoseDataset("test/empty", COCO, (), dataset.annotations)
    with pytest.raises(UserError, match="nobody is annotated"):
        sheets.people_sheet(
            PosePredictions(
                nobody, load_boxes(nobody, "gt"), np.zeros((0, 17, 2)), np.zeros((0, 17)), COCO
            )
        )


def test_real_people(coco_like, tmp_path):
    dataset, boxes, poses = coco_like
    sheet = sheets.people_sheet(
        PosePredictions(dataset, boxes, poses, np.ones((len(boxes), 17)), COCO)
    )
    cv2.imwrite(str(tmp_path / "sheet.png"), sheet[..., ::-1])
    assert sheet.std() > 20


@pytest.fixture
def coco_like(shared_data):
    from rmpe_jax.data.readers.coco import read_coco

    dataset = read_coco(shared_data / "coco", "val2017")
    boxes = load_boxes(dataset, "gt")
    poses = [
        dataset.images[i].keypoints[p]
        for i, p in zip(boxes.image_index, boxes.person_index, strict=True)
    ]
    return dataset, boxes, np.array(poses) + np.random.default_rng(0).normal(0, 5, (400, 17, 2))
