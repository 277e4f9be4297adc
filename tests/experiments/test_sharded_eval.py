"""`rmpe eval` on many devices and in several processes gives the files of one, bit for bit."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import bright
import numpy as np
import pytest
from tiny_sets import encode, write_json

from rmpe_jax.model_io.pose_model import save_pose_model

HERE = pathlib.Path(__file__).parent
FILES = ("metrics.json", "results.json", "people.png")
NUM_IMAGES = 9


def write_spots(folder: pathlib.Path) -> str:
    """Nine images with none to three people, whose joints are near bright spots; one is damaged."""
    rng = np.random.default_rng(0)
    names = [f"{number}.png" for number in range(NUM_IMAGES)]
    annotations = []
    (folder / "images").mkdir(parents=True)
    for number, name in enumerate(names):
        centers = np.array([(45, 60), (100, 50), (160, 70)])[: number % 4]
        centers = centers + rng.uniform(-8, 8, centers.shape)
        size = (120, 200)
        image = bright.spots(size, centers) if len(centers) else np.zeros((*size, 3), np.uint8)
        (folder / "images" / name).write_bytes(b"damaged" if number == 6 else encode(image))
        for center, bbox in zip(centers, bright.boxes_around(centers).bboxes, strict=True):
            joints = np.full((17, 3), 2.0)
            joints[:, :2] = center + rng.normal(0, rng.uniform(1, 8), (17, 2))
            low, high = bbox[:2].tolist(), bbox[2:].tolist()
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 1,
                "iscrowd": 0,
                "bbox": [*low, high[0] - low[0], high[1] - low[1]],
                "area": 1800.0,
                "num_keypoints": 17,
                "keypoints": joints.ravel().tolist(),
            }
            annotations.append(annotation)
    document = {
        "images": [
            {"id": number, "file_name": name, "height": 120, "width": 200}
            for number, name in enumerate(names)
        ],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }
    write_json(folder / "annotations" / "person_keypoints.json", document)
    return f"coco:{folder}"


@pytest.fixture(scope="module")
def spots(tmp_path_factory):
    """Starts `eval.py` on the images with further arguments; returns the process."""
    folder = tmp_path_factory.mktemp("spots")
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        save_pose_model(folder / "bright.safetensors", bright.pose_model())
    data = write_spots(folder / "data")
    command = [sys.executable, str(HERE / "eval_bright.py"), f"--data={data}", "--flip-test"]
    command += [f"--model={folder / 'bright.safetensors'}"]
    paths = os.pathsep.join((str(HERE.parents[1]), str(HERE.parent)))

    def start(out: pathlib.Path, *arguments: str, devices: int = 1) -> subprocess.Popen:
        flags = (
            f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
        )
        return subprocess.Popen(
            [*command, f"--out={out}", *arguments],
            env={**os.environ, "PYTHONPATH": paths, "XLA_FLAGS": flags},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def finish(process: subprocess.Popen) -> tuple[list[str], list[str]]:
    """The lines on stdout, without those of Gloo, and on stderr."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    return [line for line in out.splitlines() if line[:6] != "[Gloo]"], err.splitlines()


@pytest.fixture(scope="module")
def alone(spots, tmp_path_factory):
    """The folder that one process on one device writes, and what it prints."""
    out = tmp_path_factory.mktemp("alone") / "out"
    table, says = finish(spots(out))
    (line,) = [line for line in says if "cannot be read" in line]
    assert line.startswith("1 of 6 images cannot be read, their boxes are skipped: "), says
    (folder,) = out.iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert 0.1 < metrics["AP"] < 0.9
    return folder, table[:-1], says


def check(out: pathlib.Path, alone) -> None:
    """Are the files those of one process on one device?"""
    (folder,) = out.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for name in FILES:
        assert (folder / name).read_bytes() == (alone[0] / name).read_bytes(), name


def start_together(spots, out: pathlib.Path, count: int, devices: int):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    flags = [f"--coordinator=localhost:{port}", f"--num-processes={count}"]
    return [
        spots(out, *flags, f"--process-id={number}", devices=devices) for number in range(count)
    ]


@pytest.mark.slow
def test_eight_devices_write_the_files_of_one(spots, alone, tmp_path):
    table, says = finish(spots(tmp_path / "out", devices=8))
    check(tmp_path / "out", alone)
    assert (table[:-1], says) == alone[1:]


@pytest.mark.slow
@pytest.mark.parametrize(("count", "devices"), [(2, 1), (4, 2)])
def test_processes_write_the_files_of_one(spots, alone, tmp_path, count, devices):
    """Process 0 prints, and names the unreadable image of whichever process; the others nothing."""
    started = start_together(spots, tmp_path / "out", count, devices)
    (first, says), *others = [finish(process) for process in started]
    check(tmp_path / "out", alone)
    assert (first[:-1], says) == alone[1:]
    assert others == [([], [])] * (count - 1)


@pytest.mark.slow
def test_a_lost_process_ends_the_other(spots, tmp_path):
    first, second = start_together(spots, tmp_path / "out", 2, 1)
    assert "[Gloo]" in first.stdout.readline()  # they have found each other
    second.kill()
    _, err = first.communicate(timeout=60)
    second.communicate()
    assert first.returncode == 1, err
    said = err.splitlines()[-1]
    assert said.startswith("process 0: another process has ended or cannot be reached: stopped; ")
    assert not (tmp_path / "out").exists()
