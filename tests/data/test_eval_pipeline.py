import logging
import threading

import numpy as np
import pytest
from fake_source import encode, random_image
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.data import augment, eval_pipeline
from rmpe_jax.data.eval_pipeline import CropRequest, eval_batches
from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import CropSpec

SIZE = (32, 24)


@pytest.fixture
def images(tmp_path):
    """Paths of six images; the third is not an image and the fifth is missing."""
    paths = [tmp_path / f"{i}.png" for i in range(6)]
    for i, path in enumerate(paths):
        path.write_bytes(b"not an image" if i == 2 else encode(random_image(i)))
    paths[4].unlink()
    return paths


def requests_for(paths, per_image):
    rng = np.random.default_rng(0)
    return [
        CropRequest(path, np.array([20, 10, 80, 80], np.float32) + rng.uniform(-9, 9, 4), 100 + n)
        for n, path in enumerate(p for p in paths for _ in range(per_image))
    ]


def batches_of(requests, batch_size, num_threads=2):
    return list(
        eval_batches(requests, crop=CropSpec(SIZE), batch_size=batch_size, num_threads=num_threads)
    )


@pytest.mark.parametrize("num_threads", [1, 3])
@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_every_box_comes_back_once_in_order(images, batch_size, num_threads):
    requests = requests_for([images[i] for i in (0, 1, 3, 5)], 3)
    batches = batches_of(requests, batch_size, num_threads)
    assert all(b["image"].shape == (batch_size, *SIZE, 3) for b in batches)
    assert all(b["image"].dtype == np.uint8 for b in batches)
    joined = {name: np.concatenate([b[name] for b in batches]) for name in batches[0]}
    valid = joined["valid"]
    assert valid[: len(requests)].all()
    assert not valid[len(requests) :].any()
    assert len(valid) < len(requests) + batch_size
    np.testing.assert_array_equal(joined["index"][valid], [request.index for request in requests])
    crops = zip(requests, joined["image"], joined["image_from_crop"], strict=False)
    for request, crop, affine in crops:
        np.testing.assert_array_equal(affine, geometry.image_from_crop(request.bbox, SIZE, 1.25))
        image = random_image(int(request.path.stem))
        np.testing.assert_array_equal(crop, augment.crop(image, affine, SIZE))
    assert not joined["image"][~valid].any()
    assert np.isfinite(joined["image_from_crop"]).all()


def test_each_image_is_decoded_once(images, monkeypatch):
    decoded = []
    read = eval_pipeline.read_image

    def counting(path):
        decoded.append(path)
        return read(path)

    monkeypatch.setattr(eval_pipeline, "read_image", counting)
    batches_of(requests_for([images[0], images[1]], 7), 4)
    assert sorted(decoded) == images[:2]


def test_unreadable_images_are_left_out_and_reported_at_the_end(images, caplog):
    requests = requests_for(images, 2)
    batches = eval_batches(requests, crop=CropSpec(SIZE), batch_size=5)
    first = next(batches)
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        rest = list(batches)
    joined = np.concatenate([b["index"][b["valid"]] for b in [first, *rest]])
    np.testing.assert_array_equal(joined, [100, 101, 102, 103, 106, 107, 110, 111])
    (record,) = caplog.records
    for part in ("2 of 6 images", "2.png", "4.png"):
        assert part in record.getMessage()


def test_no_boxes_no_batches():
    assert batches_of([], 4) == []


def test_leaving_early_ends_the_threads(images):
    before = threading.active_count()
    batches = eval_batches(requests_for(images[:2], 5), crop=CropSpec(SIZE, 1.0), batch_size=2)
    next(batches)
    batches.close()
    assert threading.active_count() == before


@settings(max_examples=50, deadline=None)
@given(
    count=st.integers(0, 40),
    num_threads=st.integers(1, 4),
    ahead=st.none() | st.integers(0, 9),
)
def test_map_ahead_is_map(count, num_threads, ahead):
    started = []
    mapped = eval_pipeline.map_ahead(
        lambda x: started.append(x) or x * x, range(count), num_threads, ahead
    )
    limit = 4 * num_threads if ahead is None else ahead
    for n, value in enumerate(mapped):
        assert value == n * n
        assert len(started) <= n + limit + 1
    assert n + 1 == count if count else not started
