"""Mosaics: labels follow the pixels, and people who are mostly cut off are ignored."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.data import mosaic
from rmpe_jax.data.box_pipeline import train_dataset
from rmpe_jax.data.boxed_images import BoxLabels, label_images
from rmpe_jax.data.mosaic import MosaicOptions
from rmpe_jax.errors import UserError
from rmpe_jax.ops.padding import GRAY

BOX = np.array([[30, 20, 70, 60]], np.float32)
NOTHING = np.zeros((0, 4), np.float32)


def labels_of(bboxes=BOX, ignored=NOTHING) -> BoxLabels:
    return BoxLabels(bboxes, np.ones(len(bboxes), np.float32), ignored)


def white_box(height=80, width=120) -> np.ndarray:
    """A black image, white within `BOX`."""
    image = np.zeros((height, width, 3), np.uint8)
    image[20:60, 30:70] = 255
    return image


def extent(tile: np.ndarray) -> np.ndarray:
    """The box around the white pixels."""
    rows, columns = np.nonzero(tile[..., 0] > 180)
    return np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], np.float32)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), height=st.integers(40, 200), width=st.integers(40, 200))
def test_boxes_follow_the_pixels(seed, height, width):
    rng = np.random.default_rng(seed)
    tile = np.full((height, width, 3), GRAY, np.uint8)
    found = mosaic.paste(rng, MosaicOptions(), white_box(), labels_of(), tile)
    assert len(found.bboxes) + len(found.ignored) <= 1
    kept = np.concatenate([found.bboxes, found.ignored])
    white = (tile[..., 0] > 180).any()
    if len(kept) == 0:
        assert not white or extent(tile)[2:].min() <= 1
    elif white:
        # Edges from black to white are blurred over an enlarged pixel, and 180 is not their middle.
        np.testing.assert_allclose(extent(tile), kept[0], atol=1.6)
        np.testing.assert_array_less(-1e-3, kept[0])
        np.testing.assert_array_less(kept[0], np.array([width, height] * 2) + 1e-3)


def test_people_of_whom_little_is_left_are_ignored():
    options = MosaicOptions(scale=(4.0, 4.0), stretch=0.0, flip_prob=0.0, min_visible=0.99)
    tile = np.zeros((80, 120, 3), np.uint8)
    found = mosaic.paste(np.random.default_rng(3), options, white_box(), labels_of(), tile)
    assert len(found.bboxes) == len(found.weights) == 0
    assert len(found.ignored) <= 1


def test_tiny_people_are_ignored():
    options = MosaicOptions(scale=(0.05, 0.05), stretch=0.0)
    tile = np.zeros((80, 120, 3), np.uint8)
    found = mosaic.paste(np.random.default_rng(0), options, white_box(), labels_of(), tile)
    assert len(found.bboxes) == 0
    assert len(found.ignored) == 1


@pytest.mark.parametrize(("prob", "count"), [(0.0, 1), (1.0, 4)])
def test_tiles_cover_the_canvas_once(prob, count):
    covered = np.zeros((64, 96), int)
    for tile in mosaic.tiles(np.random.default_rng(0), MosaicOptions(mosaic_prob=prob), (64, 96)):
        covered[tile] += 1
        count -= 1
    assert count == 0
    assert (covered == 1).all()


def test_join_moves_labels_and_ignores_those_who_are_too_many():
    first = BoxLabels(BOX, np.array([0.5], np.float32), BOX + 1)
    second = BoxLabels(np.concatenate([BOX, BOX + 2]), np.array([0.7, 1], np.float32), NOTHING)
    bboxes, weights, ignored = mosaic.join([first, second], [(0, 0), (100, 10)], 2)
    move = np.array([100, 10, 100, 10])
    np.testing.assert_allclose(bboxes, np.concatenate([BOX + 2 + move, BOX + move]))
    np.testing.assert_allclose(weights, [1, 0.7])
    np.testing.assert_allclose(ignored, np.concatenate([BOX, BOX + 1]))
    bboxes, weights, ignored = mosaic.join([labels_of()], [(0, 0)], 3)
    assert weights.tolist() == [1, 0, 0]
    assert not bboxes[1:].any()
    assert not ignored.any()


@pytest.fixture
def source(tmp_path):
    for name in ("a", "b", "c"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), white_box())
    paths = [tmp_path / f"{name}.png" for name in ("a", "b", "c")]
    return label_images([[(path, labels_of()) for path in paths]], (1,))


def dataset(source, **options):
    options = {"batch_size": 4, "seed": 1} | options
    return train_dataset(
        source,
        input_size=(64, 96),
        options=MosaicOptions(color_gain=(0.9, 1.0)),
        max_boxes=5,
        **options,
    )


def test_batches_have_their_shapes_and_follow_from_their_number(source):
    stream = dataset(source)
    batch = stream[7]
    shapes = {name: (value.shape, value.dtype) for name, value in batch.items()}
    assert shapes == {
        "image": ((4, 64, 96, 3), np.uint8),
        "bboxes": ((4, 5, 4), np.float32),
        "weights": ((4, 5), np.float32),
        "ignored": ((4, 5, 4), np.float32),
        "corrupt": ((4,), bool),
    }
    assert batch["weights"].any()
    for name, value in dataset(source)[7].items():
        np.testing.assert_array_equal(value, batch[name])
    assert not np.array_equal(stream[8]["image"], batch["image"])


def test_processes_share_a_batch(source):
    whole = dataset(source)[2]
    parts = [dataset(source, process_index=i, process_count=2)[2] for i in range(2)]
    for name, value in whole.items():
        np.testing.assert_array_equal(value[0::2], parts[0][name])
        np.testing.assert_array_equal(value[1::2], parts[1][name])


def test_an_image_that_cannot_be_read_is_counted_or_refused(source, tmp_path):
    (tmp_path / "a.png").write_bytes(b"not an image")
    assert sum(dataset(source)[i]["corrupt"].sum() for i in range(3)) > 0
    with pytest.raises(Exception, match=r"a\.png"):
        [dataset(source, strict=True)[i] for i in range(3)]


def test_too_few_for_the_processes(source):
    with pytest.raises(UserError, match="is not divisible by 3 processes"):
        dataset(source, process_count=3)
