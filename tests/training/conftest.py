"""Scenes, toy networks and configs that train in seconds."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import toy
from jax.experimental.compilation_cache import compilation_cache

from rmpe_jax.config import default_config
from rmpe_jax.data.synthetic import write_coco_folder
from rmpe_jax.skeletons import MPII

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory):
    """The folder that compiled programs are kept in, by these tests and the processes they start.

    Most of the time of a toy run is compilation, of the same programs again and again.
    """
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in options}
    _configure(options)
    yield {name.upper(): str(value) for name, value in options.items()}
    _configure(before)


def _configure(options: dict) -> None:
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def demo(tmp_path_factory) -> pathlib.Path:
    """A COCO folder of four synthetic scenes with several people, to be read only."""
    folder = tmp_path_factory.mktemp("data") / "demo"
    write_coco_folder(folder, range(4), size=(120, 160))
    return folder


@pytest.fixture(scope="session")
def mpii(demo) -> pathlib.Path:
    """The same pictures with MPII's joints somewhere: an MPII folder of the split `mini`."""
    rng = np.random.default_rng(0)
    entries = [
        {
            "image": path.name,
            "joints": rng.uniform(20, 100, (MPII.num_keypoints, 2)).tolist(),
            "joints_vis": [1] * MPII.num_keypoints,
            "head_size": 12.0,
        }
        for path in sorted((demo / "images").iterdir())
    ]
    (demo / "annotations" / "mini.json").write_text(json.dumps(entries))
    return demo


@pytest.fixture
def changed_demo(demo, tmp_path):
    """Copies the scenes and calls a function on each annotation; returns the spec of the copy."""

    def change_all(change) -> str:
        folder = tmp_path / "changed"
        shutil.copytree(demo, folder, dirs_exist_ok=True)
        path = folder / "annotations" / "person_keypoints.json"
        document = json.loads((demo / "annotations" / path.name).read_text())
        for annotation in document["annotations"]:
            change(annotation)
        path.write_text(json.dumps(document))
        return f"coco:{folder}"

    return change_all


@pytest.fixture(autouse=True)
def toy_networks(monkeypatch) -> None:
    toy.register(monkeypatch.setattr)


@pytest.fixture
def config(demo):
    """Of `toy.settings`."""
    config = default_config()
    config.update_from_flattened_dict(toy.settings(demo))
    return config


@pytest.fixture
def train_py(demo, compiled_programs):
    """Starts `train.py`, with the toy networks, on the config of `config` and further arguments."""
    started = []

    def start(workdir, *arguments: str, environment: dict | None = None):
        command = [sys.executable, str(pathlib.Path(toy.__file__)), f"--workdir={workdir}"]
        command += [f"--config={ROOT}/configs/smoke.py:coco:{demo}", "--config.data.evaluate=()"]
        command += [f"--config.{key}={value}" for key, value in toy.settings(demo).items()]
        process = subprocess.Popen(
            [*command, *arguments],
            env={**os.environ, **compiled_programs, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
