"""Training steps on batches that are on the device, as the training loop runs them."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from on_accelerator import flops, timing, trace
from on_accelerator.networks import R50, SSTN, VIT, Case, images, random_variables
from on_accelerator.report import Report, attempt

from rmpe_jax.models.rmpe import RMPE
from rmpe_jax.training.objectives import PoseObjective
from rmpe_jax.training.optimizers import build_optimizer
from rmpe_jax.training.state import TrainState, init_state
from rmpe_jax.training.step import make_train_step

BATCHES = 3  # that take turns
STEPS, REPEATS = 5, 5  # of a timing, and the number of timings
NEEDS = 45.0  # seconds for one network, most of them for compilation
PROFILED = (R50, VIT)


def main_case(network: str, tiny: bool) -> Case:
    """The network at one size."""
    if tiny:
        # bfloat16 is slow on CPUs.
        return Case(network, 2, "bfloat16" if network == R50 else "float32", tiny=True)
    return Case(network, 128 if network == SSTN else 256)


def other_cases(network: str, tiny: bool) -> list[Case]:
    """Other batch sizes, and float32; the first ones first."""
    if tiny:
        return [Case(network, 3, "float32", tiny=True)]
    if network == SSTN:
        return [Case(network, size) for size in (256, 64, 512)]
    return [
        Case(network, 128),
        Case(network, 128, "float32"),
        Case(network, 512),
        Case(network, 64),
    ]


def measure(network: str, report: Report, out: pathlib.Path, tiny: bool) -> None:
    """A section of "training": one network, then the profile of five steps."""
    case = main_case(network, tiny)
    profiles: list[Callable[[], dict]] = []

    def alone() -> dict:
        program = step_program(case)
        compiled = compile_step(program)
        values, steps = time_steps(case, program, compiled)
        if network in PROFILED:
            profiles.append(functools.partial(trace.profile, network, steps, compiled.call, out))
        return values

    report.measure("training", case.name, alone, seconds=1 if tiny else NEEDS)
    for profile in profiles:
        report.measure("profile", network, profile, seconds=1 if tiny else 8)


def measure_sizes(network: str, report: Report, out: pathlib.Path, tiny: bool) -> None:
    """A section of "sizes": other batch sizes; with enough time several compile at once."""
    cases = other_cases(network, tiny)
    while cases:
        count = timing.WORKERS if report.left() > 2 * NEEDS else 1
        if not report.has(1 if tiny else NEEDS, "sizes", ", ".join(case.name for case in cases)):
            return
        group, cases = cases[:count], cases[count:]
        programs = {case: step_program(case) for case in group}
        functions = {case.name: (p.step, p.shapes) for case, p in programs.items()}
        compiled = timing.compile_all(functions, donate_argnums=0)
        for case, program in programs.items():

            def one(case: Case = case, program: Any = program, step: Any = compiled) -> dict:
                return time_steps(case, program, timing.required(step[case.name]))[0]

            report.measure("sizes", case.name, one, seconds=1 if tiny else 6)


measure_r50, measure_vit, measure_rmpe = (
    functools.partial(measure, network) for network in (R50, VIT, SSTN)
)
measure_sizes_r50, measure_sizes_vit, measure_sizes_rmpe = (
    functools.partial(measure_sizes, network) for network in (R50, VIT, SSTN)
)


@dataclasses.dataclass(frozen=True)
class Program:
    """A training step, and what it is called with.

    Attributes:
      step: (state, batch) -> (state, metrics).
      shapes: of the state and the batch.
      flops: of one crop, by hand; None if they could not be counted.
    """

    step: Callable
    shapes: tuple[TrainState, dict]
    flops: int | None


def step_program(case: Case) -> Program:
    """The training step of a case, made of the parts that the loop uses."""
    run = case.run()
    network, codec = case.build()
    objective = PoseObjective(codec, run.sstn)
    optimizer = build_optimizer(run.optim, run.total_steps, run.sstn)
    step = make_train_step(
        network,
        objective,
        optimizer,
        frozen=run.optim.frozen,
        ema_decay=run.optim.ema_decay,
        grad_accumulation=run.grad_accumulation,
        seed=run.seed,
    )
    variables = {"batch_stats": {}, **random_variables(case)}
    state = jax.eval_shape(lambda v: init_state(v, optimizer, run.optim), _shapes(variables))
    batch = _shapes(random_batch(case, 0))
    return Program(step, (state, batch), attempt(lambda: training_flops(case.for_one())))


def _shapes(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)


@functools.cache
def training_flops(case: Case) -> int:
    """FLOPs of a training step, by hand.

    Three times those of the forward pass. A frozen parallel SPPE needs no gradient of its weights:
    it counts twice.
    """
    network, codec = case.build()
    variables = random_variables(case)
    crops = images(case.batch, codec.input_size)

    def forward(variables: Any, crops: jax.Array, train: bool = True) -> Any:
        key = jax.random.key(0)
        rngs, mutable = {"drop_path": key}, ["batch_stats"]
        return network.apply(variables, crops, train=train, rngs=rngs, mutable=mutable)

    count = flops.TRAINING * flops.forward_flops(forward, variables, crops)
    if isinstance(network, RMPE) and network.parallel_sppe is not None:
        parallel = {
            kind: trees["parallel_sppe"]
            for kind, trees in variables.items()
            if "parallel_sppe" in trees
        }
        count -= flops.forward_flops(network.parallel_sppe.apply, parallel, crops)
    return count


def random_batch(case: Case, seed: int) -> dict[str, np.ndarray]:
    """What the loop puts on the device of a batch of the data pipeline."""
    spec, rng = case.spec(), np.random.default_rng(seed)
    (height, width), joints = spec.input_size, spec.skeleton.num_keypoints
    shift = rng.uniform(-4, 4, (case.batch, 2, 1))
    linear = np.eye(2) * rng.uniform(0.8, 1.25, (case.batch, 1, 1))
    batch = {
        "image": rng.integers(0, 256, (case.batch, height, width, 3), np.uint8),
        "keypoints": rng.uniform(0, (width, height), (case.batch, joints, 2)).astype(np.float32),
        "weights": np.ones((case.batch, joints), np.float32),
        "corrupt": np.zeros(case.batch, bool),
    }
    if spec.sstn:
        placed = np.concatenate([linear, shift], -1)
        batch["centered_from_crop"] = placed.astype(np.float32)
    return batch


def compile_step(program: Program) -> timing.Compiled:
    """The step, which is given the memory of its state."""
    return timing.compile_one(program.step, *program.shapes, donate_argnums=0)


def runner(case: Case, program: Program, step: Callable) -> Callable[[int], dict[str, jax.Array]]:
    """A function that runs so many compiled steps, and gives the metrics of the last."""
    variables = random_variables(case)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.shapes[0])
    variables = {"batch_stats": {}} | variables
    state = state.replace(**variables, ema=variables if state.ema else None)
    held = {"state": jax.device_put(state)}
    batches = [jax.device_put(random_batch(case, seed)) for seed in range(BATCHES)]

    def steps(count: int) -> dict[str, jax.Array]:
        metrics: Any = {}
        for index in range(count):
            held["state"], metrics = step(held["state"], batches[index % BATCHES])
        jax.block_until_ready((held["state"], metrics))
        return metrics

    return steps


def time_steps(
    case: Case, program: Program, compiled: timing.Compiled
) -> tuple[dict, Callable[[int], Any]]:
    """The line of a compiled step, and a function that runs further steps."""
    steps = runner(case, program, compiled.call)
    steps(2)
    times, metrics = [], {}
    for _ in range(2 if case.tiny else REPEATS):
        begin = time.perf_counter()
        metrics = steps(STEPS)
        times.append((time.perf_counter() - begin) / STEPS)
    speed = timing.summary(times, case.batch)
    line = {
        **case.describe(),
        **speed,
        **flops.per_crop(program.flops, speed["crops_per_s"], case.batch, compiled.call),
        **compiled.times(),
        **memory(compiled),
        "loss": round(float(metrics["loss"]), 6),
    }
    return line, steps


def memory(compiled: timing.Compiled) -> dict[str, float | None]:
    """Gigabytes: of the program as it was planned, and the highest of the process so far."""
    plan = attempt(compiled.call.memory_analysis)
    planned = None
    if plan is not None:
        sizes = plan.argument_size_in_bytes + plan.output_size_in_bytes
        planned = sizes - plan.alias_size_in_bytes + plan.temp_size_in_bytes
    seen = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    return {
        "planned_gb": planned and round(planned / 1e9, 3),
        "highest_so_far_gb": seen and round(seen / 1e9, 3),
    }


def measure_attention(report: Report, out: pathlib.Path, tiny: bool) -> None:
    """Section "attention": alone, forward and gradient, as ViTPose calls it and by cuDNN."""
    shape = (2, 4, 2, 8) if tiny else (256, 192, 12, 64)
    names = ["xla", "cudnn"] if jax.default_backend() == "gpu" else ["xla"]
    found: dict[str, float] = {}
    for name in names:

        def one(name: str = name) -> dict:
            line = time_attention(shape, name)
            found[name] = line["ms"]
            return line | {"times_xla": round(line["ms"] / found["xla"], 3)}

        report.measure("training", f"attention alone, {name}", one, seconds=1 if tiny else 6)


def time_attention(shape: tuple[int, ...], implementation: Any) -> dict:
    """Times of attention over tokens (b, n, heads, channels) in bfloat16."""
    keys = jax.random.split(jax.random.key(0), 4)
    q, k, v, weight = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys)
    attend = functools.partial(jax.nn.dot_product_attention, implementation=implementation)

    def gradient(q: jax.Array, k: jax.Array, v: jax.Array, weight: jax.Array) -> Any:
        out, pull = jax.vjp(attend, q, k, v)
        return out, pull(weight)

    compiled = timing.compile_one(gradient, q, k, v, weight)
    times = timing.seconds_per_call(lambda: compiled.call(q, k, v, weight))
    b, n, heads, channels = shape
    count = flops.TRAINING * 4 * b * heads * n * n * channels
    speed = timing.summary(times)
    share = flops.share_of_peak(count / speed["ms"] * 1e3)
    return {"shape": shape, **speed, "share_of_peak": share, **compiled.times()}
