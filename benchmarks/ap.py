"""COCO's AP of poses by OKS: ours, a compiled function of arrays, and pycocotools'.

  python benchmarks/ap.py [--images=500] [--poses=20] [--repeats=5]

Prints JSON lines. The images have eight people each, and drawn poses near them. Both get everything
in memory in their own form: ours padded arrays, as in `rmpe fit-nms`, pycocotools indexed records.
Both match and accumulate at ten thresholds, for all, medium and large people; they take turns.
"seconds" is the median, with the fastest and the slowest run beside it. "AP" is what they find;
they agree unless rounding to float32 moves an OKS to the other side of a threshold.
"""

import argparse
import contextlib
import functools
import io
import json
import statistics
from typing import Any

import jax
import numpy as np
from pose_nms import PEOPLE, scenes
from pycocotools.coco import COCO as CocoApi
from pycocotools.cocoeval import COCOeval
from timing import in_turns, spread

from rmpe_jax.arguments import positive_int
from rmpe_jax.evaluation.arrays import detection_arrays, ground_truth_arrays
from rmpe_jax.ops.average_precision import average_precision
from rmpe_jax.ops.geometry import xywh_from_xyxy
from rmpe_jax.skeletons import COCO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=positive_int, default=500)
    parser.add_argument("--poses", type=positive_int, default=20, help="in each image")
    parser.add_argument("--repeats", type=positive_int, default=5)
    args = parser.parse_args()
    people, poses = records(args.images, args.poses)
    ids, joints = range(args.images), COCO.num_keypoints
    arrays = jax.device_put(
        (detection_arrays(poses, joints, ids), ground_truth_arrays(people, joints, ids))
    )
    ours = jax.jit(functools.partial(average_precision, sigmas=COCO.sigmas))
    theirs = functools.partial(pycocotools, *indexed(people, poses))
    runs = in_turns({"ours": lambda: ours(*arrays), "pycocotools": theirs}, args.repeats)
    found = {"ours": float(ours(*arrays).precision[0].mean()), "pycocotools": theirs()}
    for name, timings in runs.items():
        seconds = spread("seconds", [run.wall for run in timings], 4)
        line = {"benchmark": "ap", "of": name, "images": args.images, "poses": args.poses}
        print(json.dumps(line | seconds | {"AP": round(found[name], 6)}))
    ratio = statistics.median(
        their_run.wall / our_run.wall for our_run, their_run in zip(*runs.values(), strict=True)
    )
    print(json.dumps({"times faster than pycocotools": round(ratio, 1)}))


def records(num_images: int, num_poses: int) -> tuple[dict, list[dict]]:
    """Annotations and results in COCO's formats: the drawn scenes of pose_nms.py."""
    candidates, truth = jax.tree.map(np.asarray, scenes(num_images, num_poses))
    people = [
        record(image, truth.keypoints[image, i], truth.bboxes[image, i], 2)
        | {"id": image * PEOPLE + i + 1, "num_keypoints": COCO.num_keypoints, "iscrowd": 0}
        | {"area": float(truth.area[image, i])}
        for image in range(num_images)
        for i in range(PEOPLE)
    ]
    poses = [
        record(image, candidates.keypoints[image, i], candidates.bboxes[image, i], 1)
        | {"score": float(candidates.bbox_scores[image, i])}
        for image in range(num_images)
        for i in range(num_poses)
    ]
    images = [{"id": image} for image in range(num_images)]
    return {"images": images, "annotations": people, "categories": [{"id": 1}]}, poses


def record(image: int, keypoints: np.ndarray, bbox: np.ndarray, visibility: int) -> dict:
    """What annotations and results have in common."""
    joints = np.column_stack([keypoints, np.full(len(keypoints), visibility)])
    box = xywh_from_xyxy(bbox).tolist()
    return {"image_id": image, "category_id": 1, "keypoints": joints.ravel().tolist(), "bbox": box}


def indexed(people: dict, poses: list[dict]) -> tuple[CocoApi, CocoApi]:
    """pycocotools' indices of both."""
    with contextlib.redirect_stdout(io.StringIO()):
        api: Any = CocoApi()
        api.dataset = people
        api.createIndex()
        return api, api.loadRes(poses)


def pycocotools(truth: CocoApi, found: CocoApi) -> float:
    """The AP of pycocotools."""
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation: Any = COCOeval(truth, found, "keypoints")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0])


if __name__ == "__main__":
    main()
