"""Measures how well the loss of the parallel SPPE guides the STN to a person.

  python -m rmpe_jax.experiments.ablation.guidance \\
    --config=configs/ablation_synthetic.py --workdir=ablation

For training crops, it prints the loss along the line from the identity to the theta of the
well-placed crop, and the component of the gradient along this line. The STN can only learn a
direction that the loss has a slope in.
"""

import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rmpe_jax.arguments import Parser, non_negative_int
from rmpe_jax.config import RunConfig, parse_config
from rmpe_jax.data.pipeline import train_dataset
from rmpe_jax.data.sources import open_source
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.experiments.ablation.rows import FULL
from rmpe_jax.experiments.ablation.run import load_ablation
from rmpe_jax.experiments.ablation.trainings import Training, second_stage
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.models.rmpe import stn
from rmpe_jax.models.spec import ModelSpec
from rmpe_jax.ops import geometry
from rmpe_jax.ops.spatial_transformer import theta_from_pixels
from rmpe_jax.pgpg.sample import open_proposals

# Points on the line from the identity (0) to the theta of the well-placed crop (1).
FRACTIONS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)
NOISES = (0.0, 0.02, 0.1)  # standard deviations of noise on theta; gradients are measured at each
_IDENTITY = jnp.eye(2, 3)


def guidance(run: RunConfig, num_batches: int = 4) -> str:
    """Lines of text: losses along the line, and slopes, of the network that a run starts from.

    Args:
      run: a second stage. `run.model.init_from` is the run of the parallel SPPE.
      num_batches: number of batches of 64 crops.
    """
    model = load_pose_model(run.model.init_from, "last")
    module, codec = model.build()

    def one_loss(outputs, keypoints, weights):
        return codec.compute_loss(outputs[None], keypoints[None], weights[None])

    def losses(theta: Float[Array, "b 2 3"], batch: dict[str, Array]) -> Float[Array, " b"]:
        outputs = module.apply(model.variables, stn(codec.inputs(batch["image"]), theta))
        keypoints = geometry.transform_points(batch["centered_from_crop"], batch["keypoints"])
        return jax.vmap(one_loss)(outputs, keypoints, batch["weights"])

    mean_loss = jax.jit(lambda theta, batch: losses(theta, batch).mean())
    gradient = jax.jit(jax.grad(lambda theta, batch: losses(theta, batch).sum()))
    rng = np.random.default_rng(0)
    curve, slopes = {fraction: [] for fraction in FRACTIONS}, {noise: [] for noise in NOISES}
    for batch in _batches(run, model.spec, num_batches):
        well_placed = geometry.invert(batch["centered_from_crop"])
        direction = theta_from_pixels(well_placed, codec.input_size) - _IDENTITY
        for fraction, values in curve.items():
            values.append(float(mean_loss(_IDENTITY + fraction * direction, batch)))
        for noise, values in slopes.items():
            theta = _IDENTITY + jnp.asarray(rng.normal(0, noise, direction.shape), jnp.float32)
            values.append(np.asarray((gradient(theta, batch) * direction).sum((1, 2))))
    lines = ["loss: " + "  ".join(f"{f:+.2f} {np.mean(v):.3f}" for f, v in curve.items())]
    for noise, values in slopes.items():
        slope = np.concatenate(values)
        lines.append(
            f"slope at noise {noise}: {slope.mean():.3f} ± {slope.std():.3f}, "
            f"signal to noise {-slope.mean() / slope.std():.2f}"
        )
    return "\n".join(lines)


def _batches(run: RunConfig, spec: ModelSpec, num_batches: int) -> list[dict[str, Array]]:
    skeleton, data = spec.skeleton, run.data
    dataset = train_dataset(
        open_source(data.train, skeleton, data.repeats),
        skeleton=skeleton,
        crop=spec.crop,
        augmentation=run.augmentation,
        batch_size=64,
        seed=run.seed,
        proposals=open_proposals(data.proposals, data.pgpg_model, data.patch_prob, skeleton),
    )
    names = ("image", "keypoints", "weights", "centered_from_crop")
    batches: list[Any] = [dataset[i] for i in range(num_batches)]
    return [{name: jnp.asarray(batch[name]) for name in names} for batch in batches]


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True, help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, type=pathlib.Path, help="of rmpe ablate")
    parser.add_argument("--seed", type=non_negative_int, default=0, help="default: 0")
    args = parser.parse_args()
    use_compilation_cache()

    def print_guidance() -> None:
        ablation = load_ablation(args.config)
        for training in (FULL, Training("jitter", sstn=True, parallel=True)):
            stage, _ = second_stage(ablation, training, args.seed, args.workdir)
            print(f"{training.name}\n{guidance(parse_config(stage))}")

    return run(print_guidance)


if __name__ == "__main__":
    sys.exit(main())
