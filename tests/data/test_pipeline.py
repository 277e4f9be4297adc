import contextlib
import itertools
import logging
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import pytest
from fake_source import FakeSource, random_image

from rmpe_jax.data import augment, pipeline
from rmpe_jax.data.augment import NO_AUGMENTATION, Augmentation
from rmpe_jax.data.images import ImageError
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO

SIZE = (32, 24)
AUGMENTATION = Augmentation(half_body_prob=0.3, translation=0.05, color_gain=(0.6, 1.4))


def stream(source, batch_size=4, augmentation=AUGMENTATION, seed=7, **options):
    return pipeline.train_dataset(
        source,
        skeleton=COCO,
        crop=CropSpec(SIZE),
        augmentation=augmentation,
        batch_size=batch_size,
        seed=seed,
        **options,
    )


def take(dataset, count, start=0, **options):
    with contextlib.closing(pipeline.iterate(dataset, start, **options)) as batches:
        return [
            {name: np.array(value) for name, value in batch.items()}
            for batch in itertools.islice(batches, count)
        ]


def assert_same(got, expected):
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name], err_msg=name)
            assert a[name].dtype == b[name].dtype


def test_a_batch_holds_what_the_docstring_says():
    batch = stream(FakeSource(10))[0]
    shapes = {
        "image": ((4, *SIZE, 3), np.uint8),
        "keypoints": ((4, 17, 2), np.float32),
        "visibility": ((4, 17), np.uint8),
        "weights": ((4, 17), np.float32),
        "image_from_crop": ((4, 2, 3), np.float32),
        "centered_from_crop": ((4, 2, 3), np.float32),
        "person_id": ((4,), np.int64),
        "corrupt": ((4,), np.bool_),
    }
    assert {name: (value.shape, value.dtype) for name, value in batch.items()} == shapes
    assert np.isfinite(batch["keypoints"]).all()


def test_without_augmentation_crops_and_keypoints_are_the_sources():
    source = FakeSource(10)
    batch = stream(source, augmentation=NO_AUGMENTATION)[3]
    for row, person_id in enumerate(batch["person_id"]):
        person = source[person_id - 1000]
        image_from_crop = geometry.image_from_crop(person["bbox"], SIZE, 1.25)
        np.testing.assert_allclose(batch["image_from_crop"][row], image_from_crop, rtol=1e-5)
        crop = augment.crop(random_image(person_id - 1000), image_from_crop, SIZE)
        np.testing.assert_array_equal(batch["image"][row], crop)
        np.testing.assert_array_equal(batch["visibility"][row], person["visibility"])
        back = geometry.transform_points(image_from_crop, batch["keypoints"][row])
        seen = person["visibility"] > 0
        np.testing.assert_allclose(back[seen], person["keypoints"][seen], atol=1e-3)
        expected = seen & augment.inside(batch["keypoints"][row], SIZE)
        np.testing.assert_array_equal(batch["weights"][row], expected)
    assert 0 < batch["weights"].sum() < (batch["visibility"] > 0).sum()


def test_each_epoch_shows_everybody_once_in_its_own_order():
    batches = take(stream(FakeSource(12)), 9)
    epochs = np.concatenate([b["person_id"] for b in batches]).reshape(3, 12) - 1000
    np.testing.assert_array_equal(np.sort(epochs, 1), np.tile(np.arange(12), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    images = np.concatenate([b["image"] for b in batches])
    same_person = images[np.argsort(np.concatenate([b["person_id"] for b in batches]))]
    assert not np.array_equal(same_person[0], same_person[1])  # the crop differs between epochs


def test_seeds_differ():
    a, b = stream(FakeSource(12), seed=1)[0], stream(FakeSource(12), seed=2)[0]
    assert not np.array_equal(a["person_id"], b["person_id"])


def test_source_smaller_than_a_batch_goes_round():
    batch = stream(FakeSource(3), batch_size=9)[1]
    ids, counts = np.unique(batch["person_id"], return_counts=True)
    np.testing.assert_array_equal(ids, [1000, 1001, 1002])
    np.testing.assert_array_equal(counts, 3)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_very_same_batch(process_count):
    source = FakeSource(11, corrupt=(3, 4))
    full = stream(source, batch_size=8)
    streams = [
        stream(source, batch_size=8, process_index=p, process_count=process_count)
        for p in range(process_count)
    ]
    for step in (0, 1, 5):
        parts = [stream[step] for stream in streams]
        joined = {name: np.stack([p[name] for p in parts], 1) for name in parts[0]}
        joined = {name: value.reshape(8, *value.shape[2:]) for name, value in joined.items()}
        assert_same([joined], [full[step]])


@pytest.mark.parametrize(
    "options",
    [
        {"num_threads": 0},
        {"num_threads": 3},
        {"num_workers": 1, "num_threads": 1, "prefetch": 2},
        {"num_workers": 2, "num_threads": 2, "prefetch": 2},
    ],
    ids=str,
)
def test_threads_and_workers_change_nothing(options):
    dataset = stream(FakeSource(11, corrupt=(5,)))
    assert_same(take(dataset, 5, **options), [dataset[i] for i in range(5)])


def test_resume_continues_exactly():
    dataset = stream(FakeSource(11))
    assert_same(take(dataset, 3, start=4), take(dataset, 7)[4:])
    assert_same(take(dataset, 2, start=5, num_workers=2, prefetch=1), take(dataset, 7)[5:])


def test_corrupt_images_are_replaced_by_the_next_person_counted_and_named(caplog):
    pipeline._warn_once.cache_clear()
    source = FakeSource(6, corrupt=(2, 3, 5))
    with caplog.at_level(logging.WARNING):
        batches = [stream(source, batch_size=6)[step] for step in range(2)]
    for batch in batches:
        ids, counts = np.unique(batch["person_id"], return_counts=True)
        np.testing.assert_array_equal(ids, [1000, 1001, 1004])
        np.testing.assert_array_equal(counts, [2, 1, 3])  # 5 -> 0; 2, 3 -> 4
        assert batch["corrupt"].sum() == 3
    assert len(caplog.records) == 3
    assert all(sum(name in r.message for r in caplog.records) == 1 for name in ("2.png", "5.png"))


def test_strict_fails_on_the_first_corrupt_image():
    dataset = stream(FakeSource(4, corrupt=(2,)), strict=True)
    with pytest.raises(ImageError, match=r"2\.png"):
        dataset[0]
    with pytest.raises(ImageError, match=r"2\.png"):
        take(dataset, 1)
    with pytest.raises(ImageError, match=r"2\.png"):
        take(dataset, 1, num_workers=1, num_threads=1, prefetch=1)


def test_nothing_but_corrupt_images_ends_the_run():
    with pytest.raises(UserError, match="3 elements in a row"):
        stream(FakeSource(3, corrupt=(0, 1, 2)))[0]


def test_unusable_arguments_are_refused():
    with pytest.raises(UserError, match="empty"):
        stream(FakeSource(0))
    with pytest.raises(UserError, match="multiple"):
        stream(FakeSource(5), batch_size=4, process_count=3)


def test_closing_before_and_during_the_iteration():
    dataset = stream(FakeSource(5))
    pipeline.iterate(dataset).close()
    batches = pipeline.iterate(dataset, num_workers=1, num_threads=1, prefetch=1)
    next(batches)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)


_RUN_WITH_WORKERS = """
import multiprocessing, sys, time
sys.path.insert(0, sys.argv[1])
import fake_source
from rmpe_jax.data import augment, pipeline
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO

if __name__ == "__main__":
    dataset = pipeline.train_dataset(
        fake_source.FakeSource(5), skeleton=COCO, crop=CropSpec((32, 24)),
        augmentation=augment.NO_AUGMENTATION, batch_size=2, seed=0,
    )
    batches = pipeline.iterate(dataset, num_workers=1, num_threads=1, prefetch=2)
    next(batches)
    print(*(child.pid for child in multiprocessing.active_children()), flush=True)
    time.sleep(60)
"""


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_run_leaves_no_worker_behind(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(_RUN_WITH_WORKERS)
    here = pathlib.Path(__file__)
    run = subprocess.Popen(
        [sys.executable, script, here.parent],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(here.parents[2])},
    )
    workers = [int(pid) for pid in run.stdout.readline().split()]
    assert len(workers) == 1
    run.kill()
    run.communicate()
    for _ in range(300):
        if not any(map(_is_running, workers)):
            return
        time.sleep(0.1)
    pytest.fail("worker processes outlive their parent")


def _is_running(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_works_where_jax_cannot_be_imported():
    """The pipeline must not need JAX: workers start fast and must not use an accelerator."""
    code = "import sys; sys.modules['jax'] = None; import rmpe_jax.data.pipeline"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
