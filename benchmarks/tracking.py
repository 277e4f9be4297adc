"""Speed of tracking, and of the assignment in it compared with other solvers.

  python benchmarks/tracking.py [--frames=1000] [--people=20] [--repeats=5]

Prints one JSON line each. `seconds` is the best of several runs after compilation, `cpu_seconds` is
the CPU time of that run over all threads, which other processes change less. `load` is the load
average of the machine during the measurement.
"""

import argparse
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.optimize
from timing import best_time

from rmpe_jax.arguments import positive_int
from rmpe_jax.ops.padding import bucket_size
from rmpe_jax.skeletons import COCO
from rmpe_jax.tracking import (
    Detections,
    FlowParams,
    TrackParams,
    start_tracks,
    track_by_pose_flow,
    track_frame,
    track_video,
)
from rmpe_jax.tracking.assignment import assign

MAX_TRACKS = 64
SIZE = np.array([1920.0, 1080.0])  # of the image


def walkers(num_frames: int, num_people: int, seed: int = 0) -> Detections:
    """People who walk to and fro over the image; boxes are noisy, a tenth of them is missed."""
    rng = np.random.default_rng(seed)
    height = rng.uniform(100, 200, (1, num_people, 1))
    shape = rng.uniform(0, 1, (num_people, COCO.num_keypoints, 2))
    way = rng.uniform(0, SIZE, (num_people, 2)) + np.arange(num_frames)[:, None, None] * rng.normal(
        0, 3, (num_people, 2)
    )
    center = np.abs((way + SIZE) % (2 * SIZE) - SIZE)  # reflected at the edges
    size = height * [0.4, 1] * (1 + 0.02 * rng.normal(size=way.shape))
    low = center - size / 2 + 0.02 * height * rng.normal(size=way.shape)
    keypoints = (low[:, :, None] + size[:, :, None] * shape) + 0.01 * height[
        ..., None
    ] * rng.normal(size=(num_frames, *shape.shape))
    joint_scores = rng.uniform(0.3, 1, keypoints.shape[:-1])
    valid = rng.uniform(size=(num_frames, num_people)) > 0.1
    bboxes = np.concatenate([low, low + size], -1)
    scores = joint_scores.mean(-1)
    columns = keypoints, joint_scores, bboxes, scores
    return Detections(*(values.astype(np.float32) for values in columns), valid)


def measure_video(num_frames: int, num_people: int, repeats: int) -> None:
    """A whole video, by `scan` and frame by frame as a live video is, and by PoseFlow."""
    detections = walkers(num_frames, num_people)
    padded = [(0, bucket_size(num_people) - num_people)]
    detections = Detections(
        *(np.pad(v, [(0, 0), *padded, *[(0, 0)] * (v.ndim - 2)]) for v in detections)
    )
    on_device = jax.tree.map(jnp.asarray, detections)
    params = TrackParams()

    def frame_by_frame() -> list[jax.Array]:
        state, ids = start_tracks(MAX_TRACKS, COCO.num_keypoints), []
        for index in range(num_frames):
            one = Detections(*(values[index] for values in detections))
            state, found = track_frame(state, one, COCO.sigmas, params)
            ids.append(found)
        return ids

    video = functools.partial(track_video, on_device, COCO.sigmas, params, max_tracks=MAX_TRACKS)
    size = {"frames": num_frames, "people": num_people, "padded": detections.valid.shape[1]}
    tracks = {"max_tracks": MAX_TRACKS}
    print_json("tracker, scan", **size, **tracks, **best_time(video, repeats))
    print_json("tracker, frame by frame", **size, **tracks, **best_time(frame_by_frame, repeats))
    flow = functools.partial(track_by_pose_flow, detections, COCO.sigmas, FlowParams())
    print_json("pose flow", **size, **best_time(flow, 1))


def measure_assignment(num_people: int, repeats: int, num_problems: int = 500) -> None:
    """The assignments of one pass: each person fits one track well, and some others a little."""
    rng = np.random.default_rng(0)
    value = np.zeros((num_problems, MAX_TRACKS, bucket_size(num_people)))
    people = value[..., :num_people]
    people[:] = rng.uniform(-0.9, 0.1, people.shape)
    for one in people:
        one[rng.permutation(MAX_TRACKS)[:num_people], np.arange(num_people)] += 0.5
    value = np.maximum(value, 0).astype(np.float32)
    on_device = jnp.asarray(value)
    solvers = {
        "assign": assign,
        "optax base_hungarian_algorithm": lambda one: optax.assignment.base_hungarian_algorithm(
            -one
        ),
        "optax hungarian_algorithm": lambda one: optax.assignment.hungarian_algorithm(-one),
    }
    shape = value.shape[1:]
    size = {"problems": num_problems, "people": num_people, "padded": shape}
    for name, solver in solvers.items():
        solve = jax.jit(functools.partial(jax.lax.map, solver))
        times = best_time(functools.partial(solve, on_device), repeats)
        print_json("assignment", solver=name, **size, **times)

    def on_host() -> list:
        return [scipy.optimize.linear_sum_assignment(one, maximize=True) for one in value]

    print_json("assignment", solver="scipy", **size, **best_time(on_host, repeats))


def print_json(what: str, **values) -> None:
    print(json.dumps({"benchmark": what, **values}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=positive_int, default=1000)
    parser.add_argument("--people", type=positive_int, default=20)
    parser.add_argument("--repeats", type=positive_int, default=5)
    args = parser.parse_args()
    measure_video(args.frames, args.people, args.repeats)
    measure_assignment(args.people, args.repeats)


if __name__ == "__main__":
    main()
