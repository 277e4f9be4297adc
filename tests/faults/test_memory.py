"""Memory must not grow with the number of batches or images."""

import os
import pathlib

import bright
import numpy as np
import pytest
import tiny_sets
from programs import times

from rmpe_jax.data import pipeline
from rmpe_jax.data.augment import Augmentation
from rmpe_jax.data.sources import open_source
from rmpe_jax.data.synthetic import write_coco_folder
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.predict import run
from rmpe_jax.predict.inputs import find_inputs
from rmpe_jax.skeletons import COCO

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not pathlib.Path("/proc/self/statm").exists(), reason="needs Linux"),
]

BATCHES = times("BATCHES", 20_000)
IMAGES = times("IMAGES", 2_000)
WARM_UP = 0.25  # of all, in which memory may grow
MOST = 2**24  # bytes that the line through the rest may rise


def resident() -> int:
    """Bytes of this process that are in memory."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def rise(sizes: list[int], every: int) -> tuple[float, float]:
    """The line through sizes after the warm-up: its rise, and its slope per item."""
    rest = sizes[int(WARM_UP * len(sizes)) :]
    slope, _ = np.polyfit(np.arange(len(rest)) * every, rest, 1)
    return slope * every * len(rest), slope


def test_batches_of_the_loader(tmp_path, tell):
    write_coco_folder(tmp_path / "demo", range(4), size=(120, 160))
    dataset = pipeline.train_dataset(
        open_source((f"coco:{tmp_path}/demo",), COCO),
        skeleton=COCO,
        crop=CropSpec((64, 48)),
        augmentation=Augmentation(),
        batch_size=4,
        seed=0,
    )
    every, sizes = max(1, BATCHES // 200), []
    batches = pipeline.iterate(dataset, num_threads=1)
    for number in range(BATCHES):
        next(batches)
        if number % every == 0:
            sizes.append(resident())
    batches.close()
    grown, slope = rise(sizes, every)
    tell(
        f"loader: {BATCHES:,} batches, {slope:.0f} bytes per batch, {grown / 2**20:.1f} MiB in all"
    )
    assert grown < MOST


def test_images_of_a_prediction(tmp_path, tell, monkeypatch, bright_network):
    (tmp_path / "images").mkdir()
    for i in range(8):
        pixels = bright.spots((100, 150), [(40 + 3 * i, 40), (110, 60)][: 1 + i % 2])
        (tmp_path / "images" / f"{i}.png").write_bytes(tiny_sets.encode(pixels))
    for i in range(8, IMAGES):
        os.link(tmp_path / "images" / f"{i % 8}.png", tmp_path / "images" / f"{i}.png")
    every, sizes = max(1, IMAGES // 200), []

    def watched(items, total, noun):
        for number, item in enumerate(items):
            if number % every == 0:
                sizes.append(resident())
            yield item

    monkeypatch.setattr(run, "progress", watched)
    estimator = PoseEstimator(bright.pose_model(), detector=bright.find_spots, batch_size=2)
    run.prepare_output_folder(tmp_path / "out", {})
    found = find_inputs([str(tmp_path / "images")])
    summary = run.predict_files(found, tmp_path / "out", estimator, formats=("coco",), draw=True)
    assert summary.images == IMAGES
    grown, slope = rise(sizes, every)
    tell(f"predict: {IMAGES:,} images, {slope:.0f} bytes per image, {grown / 2**20:.1f} MiB in all")
    assert grown < MOST
