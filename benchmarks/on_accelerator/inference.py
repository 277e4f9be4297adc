"""Networks alone, the whole estimator, and pose NMS."""

import pathlib
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pose_nms as nms_benchmark
from on_accelerator import flops, timing
from on_accelerator.networks import R50, VIT, Case, images, random_variables
from on_accelerator.report import Report, attempt

from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.pose_model import PoseModel
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.pose_nms import PoseNmsParams, pose_nms_batch

PEOPLE = 32  # in a call of the estimator


def measure(report: Report, out: pathlib.Path, tiny: bool) -> None:
    """Section "inference"."""
    sizes = (2,) if tiny else (64, 256)
    for dtype in ("float32",) if tiny else ("bfloat16", "float32"):
        _measure_networks(
            report,
            [Case(network, size, dtype, tiny) for network in (R50, VIT) for size in sizes],
            tiny,
        )
    for network in (R50,) if tiny else (R50, VIT):
        report.measure(
            "inference",
            f"estimator, {network}",
            lambda network=network: time_estimator(
                Case(network, PEOPLE, "float32" if tiny else "bfloat16", tiny)
            ),
            seconds=1 if tiny else 25,
        )


def _measure_networks(report: Report, cases: list[Case], tiny: bool) -> None:
    """The lines of some networks, which are compiled at once."""
    names = ", ".join(case.name for case in cases)
    if not report.has(1 if tiny else 25, "inference", names):
        return
    functions, counts = {}, {}
    for case in cases:
        network, codec = case.build()
        size, variables = codec.input_size, random_variables(case)
        folded, variables = fold_batch_norm(network, variables, size)
        crops = images(case.batch, size)
        functions[case.name] = folded.apply, (jax.device_put(variables), crops)
        counts[case.name] = _count(folded.apply, variables, images(1, size))
    compiled = timing.compile_all(functions)
    for case in cases:

        def one(case: Case = case) -> dict:
            ready, (variables, crops) = compiled[case.name], functions[case.name][1]
            return time_network(case, timing.required(ready), variables, crops, counts[case.name])

        report.measure("inference", case.name, one, seconds=1)


def _count(apply: Callable, variables: dict, crops: jax.ShapeDtypeStruct) -> int | None:
    return attempt(lambda: flops.forward_flops(apply, variables, crops))


def time_network(
    case: Case,
    compiled: timing.Compiled,
    variables: dict,
    crops: jax.ShapeDtypeStruct,
    count: int | None,
) -> dict:
    """The line of a network alone, with batch norms folded."""
    x = jax.random.normal(jax.random.key(0), crops.shape, crops.dtype)
    times = timing.seconds_per_call(lambda: compiled.call(variables, x))
    speed = timing.summary(times, case.batch)
    work = flops.per_crop(count, speed["crops_per_s"], case.batch, compiled.call)
    return {**case.describe(), **speed, **work, **compiled.times()}


def time_estimator(case: Case) -> dict:
    """From an image and boxes on the host to poses on the host."""
    model = PoseModel(case.spec(), random_variables(case))
    estimator = PoseEstimator(model)
    image = np.random.default_rng(1).integers(0, 256, (480, 640, 3), np.uint8)
    bboxes = np.array([100, 50, 300, 400]) + 5 * np.arange(PEOPLE)[:, None]
    begin = time.perf_counter()
    estimator.estimate(image, bboxes)
    first = time.perf_counter() - begin
    times = timing.seconds_per_call(lambda: estimator.estimate(image, bboxes).scores, calls=5)
    line = {**case.describe(), **timing.summary(times, PEOPLE)}
    return line | {"people": PEOPLE, "image": "480x640", "first_call_s": round(first, 2)}


def measure_nms(report: Report, out: pathlib.Path, tiny: bool) -> None:
    """Section "nms"."""
    num_images, steps = (4, 2) if tiny else (1300, 15)
    for preset in ("paper", "rmpe", "alphapose"):
        report.measure(
            "nms",
            f"{num_images} images of 32 poses, {preset}",
            lambda preset=preset: time_nms(num_images, preset),
            seconds=1 if tiny else 8,
        )
    grid = 4 if tiny else 500
    report.measure(
        "nms",
        f"grid of {steps}x{steps} with AP, {grid} images of 32 poses",
        lambda: nms_benchmark.time_grid(grid, 32, steps),
        seconds=1 if tiny else 20,
    )


def time_nms(num_images: int, preset: str) -> dict:
    """Pose NMS of many images at once."""
    candidates, _ = nms_benchmark.scenes(num_images, 32)
    params = PoseNmsParams.preset(preset)
    times = timing.seconds_per_call(lambda: pose_nms_batch(candidates, params), calls=5)
    kept = int(jnp.sum(pose_nms_batch(candidates, params).keep))
    return {**timing.summary(times), "kept": kept}
