"""Speed of the training pipeline: read, decode, augment, crop and batch.

    python benchmarks/loader.py --data coco:FOLDER:SPLIT

prints one JSON line for each setting of threads and workers. `samples_per_s` is what a training
loop would get if it did nothing else. `samples_per_cpu_s` depends less on other load; times the
number of cores, it is about the speed of an otherwise idle machine. Files are read from the page
cache if they fit into memory. For comparison: AlphaPose's own loader reached 171 samples/s in one
process on a similar machine (2 cores, 256x192).
"""

import argparse
import contextlib
import json
import multiprocessing
import os
import pathlib
import sys
import time

from rmpe_jax.data import pipeline
from rmpe_jax.data.augment import Augmentation
from rmpe_jax.data.sources import open_source
from rmpe_jax.errors import UserError
from rmpe_jax.ops.geometry import CropSpec
from rmpe_jax.skeletons import COCO

SETTINGS = (
    {"num_threads": 1},
    {"num_threads": 2},
    *({"num_threads": 1, "num_workers": w} for w in (1, 2)),
)


def measure(dataset, batch_size: int, seconds: float, **setting: int) -> dict[str, float]:
    """Samples per second and per second of CPU time, once the buffers are in a steady state."""
    with contextlib.closing(pipeline.iterate(dataset, **setting, prefetch=4)) as batches:
        for _ in range(12):
            next(batches)
        start, cpu_start, count = time.monotonic(), cpu_seconds(), 0
        while time.monotonic() - start < seconds:
            next(batches)
            count += batch_size
        elapsed, cpu = time.monotonic() - start, cpu_seconds() - cpu_start
    return {"samples_per_s": round(count / elapsed, 1), "samples_per_cpu_s": round(count / cpu, 1)}


def cpu_seconds() -> float:
    """CPU time used so far by this process and its workers (reads Linux's /proc)."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = pathlib.Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", default="coco:../shared/data/coco:train2017")
    parser.add_argument("--input_size", type=int, nargs=2, default=(256, 192))
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10, help="for each setting")
    args = parser.parse_args()
    source = open_source((args.data,), COCO)
    dataset = pipeline.train_dataset(
        source,
        skeleton=COCO,
        crop=CropSpec(tuple(args.input_size)),
        augmentation=Augmentation(half_body_prob=0.3, color_gain=(0.6, 1.4)),
        batch_size=args.batch_size,
        seed=0,
    )
    for setting in SETTINGS:
        inputs = {"benchmark": "loader", **vars(args), "people": len(source), **setting}
        result = measure(dataset, args.batch_size, args.seconds, **setting)
        print(json.dumps(inputs | result), flush=True)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
