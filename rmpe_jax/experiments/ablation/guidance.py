"""Measures how well the loss of the parallel SPPE guides the STN to a person.

  python -m rmpe_jax.experiments.ablation.guidance \\
    --config=configs/ablation_synthetic.py --workdir=ablation

For training crops, it prints the loss along the line from the identity to the theta of the
well-placed crop, and the derivative along this line, by automatic differentiation and by central
differences. The STN can only learn a direction that the derivative points in.

With `--train STEPS` it trains the localization network alone by each of the two, and prints the
distance of the views from the well-placed crops on people that it is not trained on.
"""

import contextlib
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmpe_jax.arguments import Parser, non_negative_int, positive_int
from rmpe_jax.config import RunConfig, model_spec, parse_config
from rmpe_jax.data.pipeline import iterate, train_dataset
from rmpe_jax.data.sources import open_source
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.experiments.ablation.config import AblationConfig
from rmpe_jax.experiments.ablation.rows import FULL
from rmpe_jax.experiments.ablation.run import load_ablation
from rmpe_jax.experiments.ablation.trainings import Training, localization_stage
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.models.rmpe import stn
from rmpe_jax.models.spec import ModelSpec, require_pose
from rmpe_jax.ops import geometry
from rmpe_jax.ops.differences import central_differences, probe_thetas
from rmpe_jax.ops.spatial_transformer import placement_error, theta_from_pixels
from rmpe_jax.training.objectives import well_placed_pose
from rmpe_jax.training.optimizers import build_optimizer
from rmpe_jax.training.pose_task import pose_task, proposals_of
from rmpe_jax.training.stages import start_from
from rmpe_jax.training.state import init_state, init_variables
from rmpe_jax.training.step import make_train_step

# Points on the line from the identity (0) to the theta of the well-placed crop (1).
FRACTIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
NOISES = (0.0, 0.02, 0.1)  # standard deviations of noise on theta; gradients are measured at each
STEPS = (0.1, 0.25)  # of the central differences at the identity
_IDENTITY = jnp.eye(2, 3)

Batch = dict[str, Array]
LossFn = Callable[[Float[Array, "b 2 3"], Batch], Float[Array, " b"]]


def parallel_losses(run: RunConfig) -> tuple[LossFn, ModelSpec]:
    """The loss of each crop in the parallel SPPE, as a function of theta, and the stage's spec.

    Args:
      run: a localization stage.
    """
    model = load_pose_model(run.sstn.parallel_from or run.model.init_from, "last")
    module, codec = model.build()
    spec = require_pose(model_spec(run))
    sizes = spec.input_size, spec.view_size

    def one_loss(outputs, keypoints, weights):
        return codec.compute_loss(outputs[None], keypoints[None], weights[None])

    def losses(theta: Float[Array, "b 2 3"], batch: Batch) -> Float[Array, " b"]:
        views = stn(codec.inputs(batch["image"]), theta, spec.view_size)
        outputs = module.apply(model.variables, views)
        return jax.vmap(one_loss)(outputs, *well_placed_pose(batch, *sizes))

    return losses, spec


def guidance(run: RunConfig, num_batches: int = 4) -> str:
    """Lines of text: losses along the line, and derivatives, of the network that a run starts from.

    Args:
      run: a localization stage.
      num_batches: number of batches of 64 crops.
    """
    losses, spec = parallel_losses(run)
    mean_loss = jax.jit(lambda theta, batch: losses(theta, batch).mean())
    gradient = jax.jit(jax.grad(lambda theta, batch: losses(theta, batch).sum()))

    @functools.partial(jax.jit, static_argnums=1)
    def differences(theta: Float[Array, "b 2 3"], step: float, batch: Batch):
        probes = probe_thetas(theta, step)
        found = jax.lax.map(lambda theta: losses(theta, batch), jnp.moveaxis(probes, 1, 0))
        return central_differences(found.T, step)

    rng = np.random.default_rng(0)
    curve: dict[float, list] = {fraction: [] for fraction in FRACTIONS}
    slopes: dict[str, list] = {}
    for batch in crop_batches(run, spec, num_batches):
        well_placed = geometry.invert(batch["centered_from_crop"])
        direction = theta_from_pixels(well_placed, spec.input_size) - _IDENTITY
        for fraction, values in curve.items():
            values.append(float(mean_loss(_IDENTITY + fraction * direction, batch)))
        start = jnp.zeros_like(direction) + _IDENTITY
        found = {}
        for noise in NOISES:
            theta = start + jnp.asarray(rng.normal(0, noise, direction.shape), jnp.float32)
            found[f"autodiff at noise {noise}"] = gradient(theta, batch)
        for step in STEPS:
            found[f"differences of {step}"] = differences(start, step, batch)
        for name, values in found.items():
            slopes.setdefault(name, []).append(np.asarray((values * direction).sum((1, 2))))
    lines = ["loss: " + "  ".join(f"{f:+.2f} {np.mean(v):.3f}" for f, v in curve.items())]
    for name, values in slopes.items():
        slope = np.concatenate(values)
        lines.append(
            f"slope by {name}: {slope.mean():.3f} ± {slope.std():.3f}, "
            f"signal to noise {-slope.mean() / slope.std():.2f}"
        )
    return "\n".join(lines)


def train_localization(
    run: RunConfig, held_out: RunConfig, every: int, num_batches: int = 4
) -> list[str]:
    """Trains the localization network as in a localization stage; nothing is written.

    Args:
      run: of the stage.
      held_out: the same with the data to measure on.
      every: number of steps between two lines.
      num_batches: number of held-out batches of 64 crops.

    Returns:
      Lines of text: the distance of the views from the well-placed crops in half sides, as
      `train/placement`, and the loss of the parallel SPPE, both on held-out crops.
    """
    task = pose_task(run)
    optimizer = build_optimizer(run.optim, run.total_steps, run.sstn)
    state = init_state(init_variables(task.spec, task.model, run.seed), optimizer, run.optim)
    state = start_from(state, task.spec, run.model.init_from, run.sstn.parallel_from)
    options = {"frozen": run.optim.frozen, "ema_decay": run.optim.ema_decay, "seed": run.seed}
    step_fn = make_train_step(task.model, task.objective, optimizer, **options)
    train_step = jax.jit(step_fn, donate_argnums=0)
    measure = held_out_measure(run, held_out, num_batches)
    lines = []
    batches = iterate(task.dataset, num_threads=run.data.num_threads)
    with contextlib.closing(batches):
        for step in range(run.total_steps + 1):
            if step % every == 0 or step == run.total_steps:
                placement, loss = measure(state.variables)
                lines.append(f"step {step}: placement {placement:.4f}, parallel loss {loss:.4f}")
                print(f"{run.sstn.guidance}, {lines[-1]}", flush=True)
            if step < run.total_steps:
                batch = next(batches)
                sent = {name: jnp.asarray(batch[name]) for name in (*task.host_keys, "corrupt")}
                state, _ = train_step(state, task.complete(sent))
    return lines


def held_out_measure(
    run: RunConfig, held_out: RunConfig, num_batches: int
) -> Callable[[Any], tuple[float, float]]:
    """A function of variables that measures where the STN looks.

    Args:
      run: a localization stage.
      held_out: the same with the data to measure on.
      num_batches: number of batches of 64 crops.

    Returns:
      A function to the distance of the views from the well-placed crops in half sides, as
      `train/placement`, and the loss of the parallel SPPE.
    """
    task, (losses, spec) = pose_task(run), parallel_losses(run)
    measured = crop_batches(held_out, spec, num_batches)

    @jax.jit
    def of_batch(variables: Any, batch: Batch) -> tuple[Array, Array]:
        inputs = task.objective.inputs(batch)
        theta: Any = task.model.apply(variables, inputs, method="theta")
        placement = placement_error(theta, batch["centered_from_crop"], spec.input_size)
        return placement, losses(theta, batch).mean()

    def measure(variables: Any) -> tuple[float, float]:
        found = [of_batch(variables, batch) for batch in measured]
        placement, loss = np.mean(np.array(found), 0)
        return float(placement), float(loss)

    return measure


def on_fit_data(stage: RunConfig, ablation: AblationConfig) -> RunConfig:
    """A stage with the data that pose NMS is learned on, which no network is trained on."""
    data = tuple(dict.fromkeys(one.fit_data for one in ablation.sets.values()))
    return dataclasses.replace(stage, data=dataclasses.replace(stage.data, train=data))


def crop_batches(run: RunConfig, spec: ModelSpec, num_batches: int) -> list[Batch]:
    """The first batches of 64 crops of a run's data.

    Args:
      run: its data, augmentation and seed.
      spec: of the run's network.
      num_batches: number of batches.
    """
    skeleton, data = spec.skeleton, run.data
    dataset = train_dataset(
        open_source(data.train, skeleton, data.repeats),
        skeleton=skeleton,
        crop=spec.crop,
        augmentation=run.augmentation,
        batch_size=64,
        seed=run.seed,
        proposals=proposals_of(data, skeleton),
    )
    names = ("image", "keypoints", "weights", "centered_from_crop")
    batches: list[Any] = [dataset[i] for i in range(num_batches)]
    return [{name: jnp.asarray(batch[name]) for name in names} for batch in batches]


def _train_both(
    ablation: AblationConfig,
    folder: pathlib.Path,
    seed: int,
    proposals: str,
    steps: int,
    parallel_weight: float,
) -> None:
    """Prints the placement over steps by both derivatives."""
    for guidance in ("autodiff", "differences"):
        training = Training(proposals, True, True, guidance)
        config, _ = localization_stage(ablation, training, seed, folder)
        config.total_steps, config.sstn.parallel_weight = steps, parallel_weight
        config.optim.clip_norm = 0.0  # which would make steps smaller with the weight
        stage = parse_config(config)
        train_localization(stage, on_fit_data(stage, ablation), every=max(steps // 4, 1))


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of rmpe ablate")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="default: 0")
    parser.add_argument(
        "--train", type=positive_int, metavar="STEPS", help="train the localization network"
    )
    parser.add_argument(
        "--proposals", default="jitter", choices=("jitter", "global", "atomic"), help="of --train"
    )
    parser.add_argument(
        "--parallel-weight",
        type=float,
        default=1.0,
        metavar="W",
        help="of the parallel SPPE's loss in --train; with 100 the main loss hardly counts, which "
        "autodiff also learns from (default: 1)",
    )
    args = parser.parse_args()
    use_compilation_cache()

    def print_guidance() -> None:
        ablation = load_ablation(args.config)
        if args.train:
            values = args.seed, args.proposals, args.train, args.parallel_weight
            _train_both(ablation, args.workdir, *values)
            return
        for training in (FULL, Training("jitter", sstn=True, parallel=True)):
            stage, _ = localization_stage(ablation, training, args.seed, args.workdir)
            print(f"{training.name}\n{guidance(parse_config(stage))}")

    return run(print_guidance)


if __name__ == "__main__":
    sys.exit(main())
