"""How fast pose NMS is: on many pictures, in a search of its parameters, and beside plain NumPy.

    python benchmarks/pose_nms.py

prints a JSON line for each. `seconds` is the best of several runs after compilation, `cpu_seconds`
the processor time of that run over all threads, which a busy machine disturbs less; `load` is the
machine's load average when it was measured. For scale: Fang et al. (ICCV 2017) report 1.8 s for
1,300 pictures.
"""

import argparse
import json
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.ops.average_precision import GroundTruth
from rmpe_jax.pose_nms import PoseCandidates, PoseNmsParams, pose_nms_batch
from rmpe_jax.pose_nms.fit import evaluate_params, oks_ap
from rmpe_jax.skeletons import COCO

PEOPLE = 8  # a picture


def scenes(num_pictures: int, n: int, seed: int = 0) -> tuple[PoseCandidates, GroundTruth]:
    """Pictures of eight people, and n proposals on each picture, some of one person."""
    rng = np.random.default_rng(seed)
    k, pictures = COCO.num_keypoints, np.arange(num_pictures)[:, None]
    size = rng.uniform(60, 200, (num_pictures, PEOPLE, 1, 1))
    corner = rng.uniform(0, 400, (num_pictures, PEOPLE, 1, 2))
    people = corner + size * rng.uniform(0, 1, (num_pictures, PEOPLE, k, 2))
    owner = rng.integers(0, PEOPLE, (num_pictures, n))
    spread = size[pictures, owner] * rng.exponential(0.03, (num_pictures, n, 1, 1))
    keypoints = people[pictures, owner] + spread * rng.normal(0, 1, (num_pictures, n, k, 2))
    boxes = np.concatenate([corner, corner + size], -1)[:, :, 0]
    scores = rng.uniform(0.3, 1, (num_pictures, n, k))
    everywhere = np.ones((num_pictures, n), bool)
    nobody = np.zeros((num_pictures, PEOPLE), bool)
    found = keypoints, scores, boxes[pictures, owner], scores.mean(-1), everywhere
    visibility = np.full(people.shape[:3], 2)
    truth = people, visibility, boxes, size[..., 0, 0] ** 2, nobody, nobody, ~nobody
    arrays = jax.tree.map(jnp.asarray, (PoseCandidates(*found), GroundTruth(*truth)))
    return arrays


def best_time(run: Callable, repeats: int) -> dict[str, float]:
    """Seconds to compile (the first call) and of the best of the calls after it."""
    times = []
    for _ in range(repeats + 1):
        start, cpu_start = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        times.append((time.perf_counter() - start, time.process_time() - cpu_start))
    seconds, cpu_seconds = min(times[1:])
    compile_seconds = times[0][0] - seconds
    return {
        "seconds": round(seconds, 5),
        "cpu_seconds": round(cpu_seconds, 5),
        "compile_seconds": round(compile_seconds, 2),
        "load": round(os.getloadavg()[0], 1),
    }


def numpy_nms(keypoints, scores, bboxes, bbox_scores, params: PoseNmsParams) -> list[int]:
    """The `rmpe` form for one picture, one reference after another, without merging."""
    unit = np.max(bboxes[:, 2:] - bboxes[:, :2], axis=1) / 10
    sure = np.tanh(scores / params.sigma1)
    remaining, kept = np.argsort(-scores.mean(-1), kind="stable"), []
    while len(remaining):
        best = remaining[0]
        distance = np.linalg.norm(keypoints[remaining] - keypoints[best], axis=-1) / unit[best]
        matching = np.where(distance <= 1, sure[remaining] * sure[best], 0).sum(-1)
        similarity = matching + params.lam * np.exp(-distance / params.sigma2).sum(-1)
        kept.append(int(best))
        remaining = remaining[1:][similarity[1:] <= params.eta]
    return sorted(kept)


def measure_pictures(num_pictures: int, n: int, repeats: int) -> None:
    """All presets on a batch of pictures, and NumPy on some of them."""
    proposals, _ = scenes(num_pictures, n)
    for preset in ("paper", "rmpe", "alphapose"):
        params = PoseNmsParams.preset(preset)
        result = best_time(lambda params=params: pose_nms_batch(proposals, params), repeats)
        say("pose_nms", preset=preset, pictures=num_pictures, proposals=n, **result)
        if preset == "rmpe":
            say_numpy(proposals, pose_nms_batch(proposals, params).keep, params, result["seconds"])


def say_numpy(proposals: PoseCandidates, keep, params: PoseNmsParams, batch_seconds: float) -> None:
    """NumPy's time for a picture beside ours, once both are seen to agree."""
    pictures = [[np.asarray(column[i]) for column in proposals[:4]] for i in range(30)]
    start = time.perf_counter()
    kept = [numpy_nms(*picture, params) for picture in pictures]
    numpy_seconds = (time.perf_counter() - start) / len(pictures)
    assert kept == [np.flatnonzero(row).tolist() for row in np.asarray(keep[:30])]
    num_pictures, n = proposals.valid.shape
    ours = batch_seconds / num_pictures
    say(
        "a picture beside NumPy",
        proposals=n,
        in_batches_of=num_pictures,
        our_ms=round(ours * 1e3, 4),
        numpy_ms=round(numpy_seconds * 1e3, 3),
        times_faster=round(numpy_seconds / ours, 1),
    )


def measure_grid(num_pictures: int, n: int, steps: int) -> None:
    """AP of every parameter set of one two-parameter search."""
    proposals, ground_truth = scenes(num_pictures, n)
    start = PoseNmsParams.preset("rmpe")
    lam, eta = (v.ravel() for v in np.meshgrid(np.geomspace(0.1, 10, steps), np.arange(steps) + 5))
    params = jax.tree.map(lambda v: jnp.full(steps**2, v, jnp.float32), start)
    params = params.replace(lam=jnp.asarray(lam), eta=jnp.asarray(eta, jnp.float32))
    objective = oks_ap(COCO.sigmas)
    result = best_time(
        lambda: evaluate_params(
            params,
            (proposals,),
            ground_truth,
            objective=objective,
            max_people=20,
            batch_size=1 if jax.default_backend() == "cpu" else steps,
        ),
        repeats=1,
    )
    say("grid with AP", sets=steps**2, pictures=num_pictures, proposals=n, **result)


def say(what: str, **values) -> None:
    print(json.dumps({"benchmark": what, **values}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=10)
    args = parser.parse_args()
    measure_pictures(1300, 32, args.repeats)
    measure_pictures(300, 50, args.repeats)
    measure_grid(500, 32, 15)


if __name__ == "__main__":
    main()
