"""Speed of pose NMS: on many images, in a search of its parameters, and compared with NumPy.

  python benchmarks/pose_nms.py [--repeats=10]

Prints one JSON line each. `seconds` is the best of several runs after compilation, `cpu_seconds` is
the CPU time of that run over all threads, which other processes change less. `load` is the load
average of the machine during the measurement. For comparison: Fang et al. (ICCV 2017) report 1.8 s
for 1,300 images.
"""

import argparse
import json
import time

import jax
import jax.numpy as jnp
import numpy as np
from timing import best_time

from rmpe_jax.arguments import positive_int
from rmpe_jax.ops.average_precision import GroundTruth
from rmpe_jax.pose_nms import PoseCandidates, PoseNmsParams, pose_nms_batch
from rmpe_jax.pose_nms.fit import evaluate_params, oks_ap
from rmpe_jax.skeletons import COCO

PEOPLE = 8  # per image


def scenes(num_images: int, n: int, seed: int = 0) -> tuple[PoseCandidates, GroundTruth]:
    """Images with eight people, and n candidate poses per image, some of the same person."""
    rng = np.random.default_rng(seed)
    k, images = COCO.num_keypoints, np.arange(num_images)[:, None]
    size = rng.uniform(60, 200, (num_images, PEOPLE, 1, 1))
    corner = rng.uniform(0, 400, (num_images, PEOPLE, 1, 2))
    people = corner + size * rng.uniform(0, 1, (num_images, PEOPLE, k, 2))
    owner = rng.integers(0, PEOPLE, (num_images, n))
    spread = size[images, owner] * rng.exponential(0.03, (num_images, n, 1, 1))
    keypoints = people[images, owner] + spread * rng.normal(0, 1, (num_images, n, k, 2))
    boxes = np.concatenate([corner, corner + size], -1)[:, :, 0]
    scores = rng.uniform(0.3, 1, (num_images, n, k))
    valid = np.ones((num_images, n), bool)
    crowd = np.zeros((num_images, PEOPLE), bool)
    candidates = keypoints, scores, boxes[images, owner], scores.mean(-1), valid
    visibility = np.full(people.shape[:3], 2)
    truth = people, visibility, boxes, size[..., 0, 0] ** 2, crowd, crowd, ~crowd
    return jax.tree.map(jnp.asarray, (PoseCandidates(*candidates), GroundTruth(*truth)))


def numpy_nms(keypoints, scores, bboxes, bbox_scores, params: PoseNmsParams) -> list[int]:
    """The `rmpe` variant for one image, in a loop over reference poses, without merging."""
    unit = np.max(bboxes[:, 2:] - bboxes[:, :2], axis=1) / 10
    confidence = np.tanh(scores / params.sigma1)
    remaining, kept = np.argsort(-scores.mean(-1), kind="stable"), []
    while len(remaining):
        best = remaining[0]
        distance = np.linalg.norm(keypoints[remaining] - keypoints[best], axis=-1) / unit[best]
        matching = np.where(distance <= 1, confidence[remaining] * confidence[best], 0).sum(-1)
        similarity = matching + params.lam * np.exp(-distance / params.sigma2).sum(-1)
        kept.append(int(best))
        remaining = remaining[1:][similarity[1:] <= params.eta]
    return sorted(kept)


def measure_images(num_images: int, n: int, repeats: int) -> None:
    """All presets on a batch of images, and NumPy on some of them."""
    candidates, _ = scenes(num_images, n)
    for preset in ("paper", "rmpe", "alphapose"):
        params = PoseNmsParams.preset(preset)
        result = best_time(lambda params=params: pose_nms_batch(candidates, params), repeats)
        print_json("pose_nms", preset=preset, images=num_images, candidates=n, **result)
        if preset == "rmpe":
            keep = pose_nms_batch(candidates, params).keep
            measure_numpy(candidates, keep, params, result["seconds"])


def measure_numpy(
    candidates: PoseCandidates, keep: jax.Array, params: PoseNmsParams, batch_seconds: float
) -> None:
    """NumPy's time per image compared with ours, after a check that both keep the same poses."""
    images = [[np.asarray(column[i]) for column in candidates[:4]] for i in range(30)]
    start = time.perf_counter()
    kept = [numpy_nms(*image, params) for image in images]
    numpy_seconds = (time.perf_counter() - start) / len(images)
    assert kept == [np.flatnonzero(row).tolist() for row in np.asarray(keep[:30])]
    num_images, n = candidates.valid.shape
    ours = batch_seconds / num_images
    print_json(
        "one image, compared with NumPy",
        candidates=n,
        in_batches_of=num_images,
        our_ms=round(ours * 1e3, 4),
        numpy_ms=round(numpy_seconds * 1e3, 3),
        times_faster=round(numpy_seconds / ours, 1),
    )


def time_grid(num_images: int, n: int, steps: int) -> dict[str, float]:
    """Times of the AP of all parameter sets of one two-parameter search."""
    candidates, ground_truth = scenes(num_images, n)
    start = PoseNmsParams.preset("rmpe")
    lam, eta = (v.ravel() for v in np.meshgrid(np.geomspace(0.1, 10, steps), np.arange(steps) + 5))
    params = jax.tree.map(lambda v: jnp.full(steps**2, v, jnp.float32), start)
    params = params.replace(lam=jnp.asarray(lam), eta=jnp.asarray(eta, jnp.float32))
    objective = oks_ap(COCO.sigmas)
    return best_time(
        lambda: evaluate_params(
            params,
            (candidates,),
            ground_truth,
            objective=objective,
            max_people=20,
            batch_size=1 if jax.default_backend() == "cpu" else steps,
        ),
        repeats=1,
    )


def measure_grid(num_images: int, n: int, steps: int) -> None:
    """Prints the times of one two-parameter search."""
    times = time_grid(num_images, n, steps)
    print_json("grid with AP", sets=steps**2, images=num_images, candidates=n, **times)


def print_json(what: str, **values) -> None:
    print(json.dumps({"benchmark": what, **values}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=positive_int, default=10)
    args = parser.parse_args()
    measure_images(1300, 32, args.repeats)
    measure_images(300, 50, args.repeats)
    measure_grid(500, 32, 15)


if __name__ == "__main__":
    main()
