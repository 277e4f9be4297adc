"""Small datasets in memory and on disk, and random COCO ground truth."""

import json
import pathlib

import numpy as np
import pytest

from rmpe_jax import skeletons
from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset


@pytest.fixture(scope="session")
def coco_val(shared_data):
    return read_coco(shared_data / "coco", "val2017")


@pytest.fixture
def make_dataset():
    """A function from (skeleton, keypoints per image, ...) to a PoseDataset without files."""

    def make(skeleton, people, image_ids=None, head_size=np.nan, folder="images"):
        image_ids = image_ids or [f"p{i}.jpg" for i in range(len(people))]
        records = []
        for image_id, keypoints in zip(image_ids, people, strict=True):
            n, k = len(keypoints), skeleton.num_keypoints
            keypoints = np.asarray(keypoints, np.float32).reshape(n, k, 2)
            size = np.full(n, 1e4, np.float32)
            records.append(
                ImageRecord(
                    image_id=image_id,
                    path=pathlib.Path(folder) / str(image_id),
                    keypoints=keypoints,
                    visibility=np.full((n, k), 2, np.uint8),
                    bboxes=np.tile(np.float32([0, 0, 100, 100]), (n, 1)),
                    area=size,
                    iscrowd=np.zeros(n, bool),
                    head_sizes=np.full(n, head_size, np.float32),
                    person_ids=np.arange(n),
                )
            )
        return PoseDataset("test/set", skeleton, tuple(records), pathlib.Path("none.json"))

    return make


def random_ground_truth(seed, num_images=12, k=17):
    """COCO ground truth with crowds, people without joints, and all sizes."""
    rng = np.random.default_rng(seed)
    annotations = []
    for image_id in range(1, num_images + 1):
        for _ in range(rng.integers(0, 6)):
            x, y = rng.uniform(0, 400, 2)
            w, h = np.exp(rng.uniform(np.log(15), np.log(300), 2))
            visibility = rng.integers(0, 3, k) * (rng.uniform() > 0.2)
            points = np.c_[rng.uniform(x, x + w, k), rng.uniform(y, y + h, k), visibility]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 1,
                    "bbox": [x, y, w, h],
                    "area": 0.6 * w * h,
                    "iscrowd": int(rng.uniform() < 0.1),
                    "keypoints": (points * (visibility > 0)[:, None]).ravel().tolist(),
                    "num_keypoints": int((visibility > 0).sum()),
                }
            )
    return {
        "images": [{"id": i + 1, "file_name": f"{i + 1:012d}.jpg"} for i in range(num_images)],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }


def noisy_results(ground_truth, seed, noise=0.1):
    """Predictions near the annotated people, some twice, some nowhere."""
    rng = np.random.default_rng(seed)
    results = []
    for a in ground_truth["annotations"] * 2:
        if rng.uniform() < 0.3:
            continue
        points = np.reshape(a["keypoints"], (-1, 3)).astype(float)
        size = np.sqrt(a["area"]) * rng.exponential(noise)
        points[:, :2] += rng.normal(0, size, (len(points), 2))
        results.append(
            {
                "image_id": a["image_id"],
                "category_id": 1,
                "keypoints": points.ravel().tolist(),
                "bbox": (np.array(a["bbox"]) + rng.normal(0, size, 4)).tolist(),
                "score": float(rng.uniform()),
            }
        )
    return results


@pytest.fixture
def random_set():
    """A function from a seed to (ground truth, results)."""

    def make(seed, **kwargs):
        ground_truth = random_ground_truth(seed, **kwargs)
        return ground_truth, noisy_results(ground_truth, seed)

    return make


@pytest.fixture
def write(tmp_path):
    """A function that writes JSON (or text, as it is) and gives the file's path."""

    def write_file(content, name="file.json"):
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write_file


@pytest.fixture
def union_pose():
    """A function that puts poses of a skeleton into the union's joints, NaN elsewhere."""

    def put(skeleton, keypoints):
        poses = np.full((len(keypoints), skeletons.UNION.num_keypoints, 2), np.nan)
        poses[:, skeleton.indices_in(skeletons.UNION)] = keypoints
        return poses

    return put
