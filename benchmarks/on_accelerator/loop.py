"""The training loop with the real data loader: how long it waits for batches."""

import concurrent.futures
import multiprocessing
import os
import pathlib
import signal
import statistics
import tempfile
import threading
import time
from typing import Any

from on_accelerator.networks import R50, Case
from on_accelerator.report import Report, read_lines

SECONDS = 25.0
NEEDS = 60.0  # compilation and the end beside it


def measure(report: Report, out: pathlib.Path, tiny: bool) -> None:
    """Section "loop"."""
    case = Case(R50, 2 if tiny else 128, tiny=tiny)
    seconds = 2.0 if tiny else SECONDS
    report.measure(
        "loop",
        f"train, {case.name}",
        lambda: time_loop(case, seconds, tiny),
        seconds=seconds + (1 if tiny else NEEDS),
    )


def time_loop(case: Case, seconds: float, tiny: bool) -> dict:
    """Runs `train` on synthetic scenes and reads its metrics.

    A SIGTERM ends it some seconds after its first line of metrics, as a preemption would.
    """
    from rmpe_jax.training.loop import TERMINATED, train

    cores = os.cpu_count() or 1
    workers = cores // 2 if cores > 4 else 0
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        folders = draw_scenes(pathlib.Path(folder), min(cores, 2 if tiny else 12), tiny)
        drawn = time.perf_counter() - begin
        config = config_of_scenes(case, folders)
        config.data.num_workers, config.data.num_threads = workers, 2
        config.total_steps = 10**6
        config.log_every = 2 if tiny else 20
        workdir = pathlib.Path(folder) / "run"
        metrics, over = workdir / "metrics.jsonl", threading.Event()
        threading.Thread(target=_end_later, args=(metrics, seconds, over), daemon=True).start()
        try:
            train(config, workdir)
        except SystemExit as end:
            if end.code != TERMINATED:
                raise
        finally:
            over.set()
        lines = [line for line in read_lines(metrics) if "train/data_wait" in line]
    steady = lines[1:-1] or lines  # the last line has other steps than the others
    value = {
        name: statistics.median(line[f"train/{name}"] for line in steady)
        for name in ("samples_per_second", "data_wait")
    }
    return {
        **case.describe(),
        "crops_per_s": round(value["samples_per_second"], 1),
        "data_wait": round(value["data_wait"], 4),
        "steps": lines[-1]["step"],
        "workers": workers,
        "threads": 2,
        "cores": cores,
        "drawing_s": round(drawn, 1),
    }


def config_of_scenes(case: Case, folders: list[pathlib.Path]) -> Any:
    """The `ConfigDict` of a run on scenes, without evaluation and with a checkpoint at the end."""
    config = case.config()
    config.data.train = tuple(f"coco:{scenes}" for scenes in folders)
    config.data.repeats, config.data.evaluate = (), ()
    config.data.proposals, config.data.pgpg_model = "none", ""
    config.checkpoint_every = config.evaluate_every = 10**6
    return config


def _end_later(metrics: pathlib.Path, seconds: float, over: threading.Event) -> None:
    """Sends SIGTERM to this process some seconds after the first metrics, unless it is over."""
    while not (metrics.exists() and metrics.stat().st_size):
        if over.wait(0.2):
            return
    if not over.wait(seconds):
        os.kill(os.getpid(), signal.SIGTERM)


def draw_scenes(folder: pathlib.Path, parts: int, tiny: bool) -> list[pathlib.Path]:
    """Folders of synthetic scenes, drawn by as many processes."""
    each, size = (2, (120, 160)) if tiny else (12, (480, 640))
    folders = [folder / f"scenes_{part}" for part in range(parts)]
    seeds = [range(part * each, (part + 1) * each) for part in range(parts)]
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(parts, mp_context=context) as pool:
        list(pool.map(_draw, folders, seeds, [size] * parts))
    return folders


def _draw(folder: pathlib.Path, seeds: range, size: tuple[int, int]) -> None:
    from rmpe_jax.data.synthetic import write_coco_folder

    write_coco_folder(folder, seeds, size)
