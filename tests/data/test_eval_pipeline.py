import logging
import threading

import numpy as np
import pytest
from fake_source import encode, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.data import augment, eval_pipeline
from rmpe_jax.data.eval_pipeline import PersonBox, eval_batches
from rmpe_jax.ops import geometry

SIZE = (32, 24)


@pytest.fixture
def pictures(tmp_path):
    """Six pictures; the third is no picture and the fifth is missing."""
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(b"no picture" if i == 2 else encode(picture(i)))
    paths[4].unlink()
    return paths


def boxes(paths, per_picture):
    rng = np.random.default_rng(0)
    return [
        PersonBox(path, np.array([20, 10, 80, 80], np.float32) + rng.uniform(-9, 9, 4), 100 + n)
        for n, path in enumerate(p for p in paths for _ in range(per_picture))
    ]


def batches_of(items, batch_size, num_threads=2):
    return list(
        eval_batches(
            items, input_size=SIZE, padding=1.25, batch_size=batch_size, num_threads=num_threads
        )
    )


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_every_box_comes_back_once_in_order(pictures, batch_size, num_threads):
    items = boxes([pictures[i] for i in (0, 1, 3, 5)], 3)
    batches = batches_of(items, batch_size, num_threads)
    assert all(b["image"].shape == (batch_size, *SIZE, 3) for b in batches)
    assert all(b["image"].dtype == np.uint8 for b in batches)
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    valid = joined["valid"]
    assert valid[: len(items)].all()
    assert not valid[len(items) :].any()
    assert len(valid) < len(items) + batch_size
    np.testing.assert_array_equal(joined["index"][valid], [item.index for item in items])
    for item, image, affine in zip(items, joined["image"], joined["image_from_crop"], strict=False):
        np.testing.assert_array_equal(affine, geometry.image_from_crop(item.bbox, SIZE, 1.25))
        whole = picture(int(item.path.stem))
        np.testing.assert_array_equal(image, augment.crop(whole, affine, SIZE))
    assert not joined["image"][~valid].any()
    assert np.isfinite(joined["image_from_crop"]).all()


def test_each_picture_is_decoded_once(pictures, monkeypatch):
    decoded = []
    read = eval_pipeline.read_picture

    def counting(path):
        decoded.append(path)
        return read(path)

    monkeypatch.setattr(eval_pipeline, "read_picture", counting)
    batches_of(boxes([pictures[0], pictures[1]], 7), 4)
    assert sorted(decoded) == pictures[:2]


def test_unreadable_pictures_are_left_out_and_reported_at_the_end(pictures, caplog):
    items = boxes(pictures, 2)
    batches = eval_batches(items, input_size=SIZE, padding=1.25, batch_size=5)
    first = next(batches)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        rest = list(batches)
    joined = np.concatenate([b["index"][b["valid"]] for b in [first, *rest]])
    np.testing.assert_array_equal(joined, [100, 101, 102, 103, 106, 107, 110, 111])
    (record,) = caplog.records
    for part in ("2 of 6 pictures", "2.png", "4.png"):
        assert part in record.getMessage()


def test_no_boxes_no_batches():
    assert batches_of([], 4) == []


def test_leaving_early_ends_the_threads(pictures):
    before = threading.active_count()
    batches = eval_batches(boxes(pictures[:2], 5), input_size=SIZE, padding=1.0, batch_size=2)
    next(batches)
    batches.close()
    assert threading.active_count() == before


@settings(max_examples=50, deadline=None)
@given(count=st.integers(0, 40), num_threads=st.integers(1, 4))
def test_map_ahead_is_map(count, num_threads):
    started = []
    mapped = eval_pipeline.map_ahead(
        lambda x: started.append(x) or x * x, range(count), num_threads
    )
    for n, value in enumerate(mapped):
        assert value == n * n
        assert len(started) <= n + 4 * num_threads + 1
    assert n + 1 == count if count else not started
