"""The programs that faults happen to, with tiny data and networks.

Each program writes to one folder. Started again after a fault, with the same arguments, it must end
with the result that it has without one.
"""

import os
import pathlib
import pickle
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import bright
import cv2
import jax
import numpy as np
import pytest
import tiny_sets
import toy

from rmpe_jax.data.prepared import open_prepared, read_people
from rmpe_jax.data.synthetic import write_coco_folder
from rmpe_jax.model_io.checkpoints import open_manager, read_meta, read_variables, steps_of
from rmpe_jax.model_io.pose_model import save_pose_model

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]
RMPE = (str(HERE / "bright_rmpe.py"),)
Arrays = dict[str, Any]


def times(name: str, default: int) -> int:
    """How often a fault is injected: the environment variable `RMPE_FAULT_` + `name`."""
    return int(os.environ.get(f"RMPE_FAULT_{name}", default))


class Program(NamedTuple):
    """A program with everything but its folder.

    Attributes:
      arguments: of Python, for the folder to write.
      result: what is in the folder of a run that ended, for comparison.
      check: fails if an unfinished run has left a file that readers would take for whole; called
        with the folder and the result of a whole run.
    """

    arguments: Callable[[pathlib.Path], list[str]]
    result: Callable[[pathlib.Path], Any]
    check: Callable[[pathlib.Path, Any], None]

    def start(
        self, folder: pathlib.Path, environment: Mapping[str, str] | None = None, **options: Any
    ) -> subprocess.Popen:
        """Starts it; `options` are of `subprocess.Popen`."""
        return subprocess.Popen(
            [sys.executable, *self.arguments(folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )


def finish(process: subprocess.Popen) -> tuple[int, list[str]]:
    """Exit status and lines on stderr."""
    _, err = process.communicate(timeout=600)
    return process.returncode, err.splitlines()


def files_in(folder: pathlib.Path) -> dict[str, bytes]:
    """The content of all files, without those of unfinished writes."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.suffix != ".tmp"
    }


# ---- prepare -------------------------------------------------------------------------------------


def prepare(data: pathlib.Path) -> Program:
    """`rmpe prepare` of 60 images."""
    tiny_sets.write_lsp(data / "lsp", people=60)
    return Program(
        lambda folder: [*RMPE, "prepare", f"lsp:{data}/lsp", "--out", str(folder / "out")],
        lambda folder: _prepared(folder / "out"),
        _check_prepared,
    )


def _prepared(folder: pathlib.Path) -> dict[str, Any]:
    """All files but the shards, whose bytes differ from run to run, and all records of these."""
    files = files_in(folder)
    shards = [name for name in files if "array_record" in name]
    assert shards
    images = open_prepared(folder)
    records = [pickle.dumps(sorted(images[i].items())) for i in range(len(images))]
    people = [array.tolist() for array in read_people(folder)]
    rest = {name: content for name, content in files.items() if name not in shards}
    return {"shards": shards, "records": records, "people": people, "files": rest}


def _check_prepared(folder: pathlib.Path, whole: dict[str, Any]) -> None:
    if (folder / "out").exists():
        assert _prepared(folder / "out") == whole


# ---- train and save ------------------------------------------------------------------------------


def train(data: pathlib.Path, *more: str) -> Program:
    """`rmpe train` of a toy network: 8 steps, saved every 2, evaluated every 4.

    `more` arguments change that.
    """
    demo = data / "demo"
    write_coco_folder(demo, range(4), size=(120, 160))
    settings = toy.settings(demo) | {"total_steps": 8, "evaluate_every": 4}
    arguments = [
        str(ROOT / "tests/training/toy.py"),
        f"--config={ROOT}/configs/smoke.py:coco:{demo}",
    ]
    arguments += [f"--config.data.evaluate=('coco:{demo}',)"]
    arguments += [f"--config.{key}={value}" for key, value in settings.items()]
    return Program(
        lambda folder: [*arguments, *more, f"--workdir={folder / 'run'}"],
        lambda folder: _trained(folder / "run"),
        lambda folder, whole: _check_run(folder / "run"),
    )


def _trained(workdir: pathlib.Path) -> dict[str, Any]:
    """Arrays of all checkpoints, byte by byte, and what was measured of them."""
    timed = ("train/samples_per_second", "train/data_wait")
    lines = [
        {name: value for name, value in line.items() if name not in timed}
        for line in toy.metrics_of(workdir)
    ]
    saved = {name: checkpoints_in(workdir / name) for name in ("checkpoints", "best")}
    return {"metrics": lines, **saved}


def _check_run(workdir: pathlib.Path) -> None:
    for name in ("checkpoints", "best"):
        checkpoints_in(workdir / name)


def checkpoints_in(folder: pathlib.Path) -> dict[int, Arrays]:
    """The variables of every step that readers take for whole, as bytes, and its scores."""
    if not folder.is_dir():
        return {}
    with open_manager(folder, read_only=True) as manager:
        return {step: _checkpoint(manager, step) for step in steps_of(manager)}


def _checkpoint(manager: Any, step: int) -> Arrays:
    meta = read_meta(manager, step)
    assert meta["step"] == step
    flat, _ = jax.tree.flatten_with_path(read_variables(manager, step))
    return {str(path): np.asarray(leaf).tobytes() for path, leaf in flat} | {
        "scores": meta["scores"]
    }


def save(data: pathlib.Path) -> Program:
    """Checkpoints of a training run, saved one after the other."""
    del data
    return Program(
        lambda folder: [str(HERE / "saves.py"), str(folder / "checkpoints")],
        lambda folder: checkpoints_in(folder / "checkpoints"),
        _check_saves,
    )


def _check_saves(folder: pathlib.Path, whole: dict[int, Arrays]) -> None:
    sizes = {name: len(value) for name, value in next(iter(whole.values())).items()}
    for step, found in checkpoints_in(folder / "checkpoints").items():
        assert {name: len(value) for name, value in found.items()} == sizes
        kernel = next(value for name, value in found.items() if "kernel" in name)
        np.testing.assert_allclose(np.frombuffer(kernel, np.float32), (step + 0.1) / 3, rtol=1e-6)


# ---- evaluate and predict ------------------------------------------------------------------------


def evaluate(data: pathlib.Path) -> Program:
    """`rmpe eval` of the network "bright" on synthetic scenes."""
    write_coco_folder(data / "demo", range(8), size=(120, 160))
    model = _bright_model(data)
    fixed = [*RMPE, "eval", f"--model={model}", f"--data=coco:{data}/demo"]
    return Program(
        lambda folder: [*fixed, f"--out={folder / 'eval'}"],
        lambda folder: files_in(folder / "eval"),
        _check_evaluated,
    )


def _check_evaluated(folder: pathlib.Path, whole: dict[str, bytes]) -> None:
    """Each file is whole or missing."""
    for name, content in files_in(folder / "eval").items():
        assert content == whole.get(name), f"{name} has {len(content)} bytes"


def predict(data: pathlib.Path) -> Program:
    """`rmpe predict` of 40 images with drawings and two more formats."""
    (data / "images").mkdir(parents=True)
    for i in range(40):
        centers = [(40 + i, 40), (110, 60)][: 1 + i % 2]
        cv2.imwrite(str(data / "images" / f"{i:02}.png"), bright.spots((100, 150), centers))
    fixed = [*RMPE, "predict", str(data / "images"), "--model", str(_bright_model(data))]
    fixed += ["--detector", "spots", "--format", "coco", "--format", "openpose", "--draw"]
    return Program(
        lambda folder: [*fixed, "--resume", "--out", str(folder / "out")],
        lambda folder: files_in(folder / "out"),
        _check_predicted,
    )


def _check_predicted(folder: pathlib.Path, whole: dict[str, bytes]) -> None:
    """The journal is the beginning of the whole one; other files are whole or missing."""
    for name, content in files_in(folder / "out").items():
        if name == "poses.jsonl":
            assert whole[name].startswith(content)
        elif name != ".lock":
            assert content == whole[name], f"{name} has {len(content)} bytes"


def _bright_model(data: pathlib.Path) -> pathlib.Path:
    path = data / "bright.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        bright.register(patch.setattr)
        save_pose_model(path, bright.pose_model())
    return path


PROGRAMS: dict[str, Callable[[pathlib.Path], Program]] = {
    "prepare": prepare,
    "train": train,
    "save": save,
    "evaluate": evaluate,
    "predict": predict,
}
