"""How well the parallel SPPE's loss tells the STN where a person is.

  python -m rmpe_jax.experiments.ablation.guidance \\
    --config=configs/ablation_synthetic.py --workdir=ablation

For crops of training: the loss on the way from the identity to the theta of the well-placed crop,
and how much of its gradient points there. What the loss does not know, the STN cannot learn.
"""

import argparse
import pathlib
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jaxtyping import Array, Float

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

SHARES = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.25)  # of the way from the identity to the truth
OFFSETS = (0.0, 0.02, 0.1)  # standard deviation of noise on theta, where gradients are measured
_IDENTITY = jnp.eye(2, 3)


def guidance(config: ml_collections.ConfigDict, num_batches: int = 4) -> str:
    """Two lines of numbers about a second stage's parallel SPPE, its first one.

    Args:
      config: of a second stage.
      num_batches: of 64 crops.
    """
    run = parse_config(config)
    model = load_pose_model(run.model.init_from, "last")
    module, codec = model.build()

    def one_loss(outputs, keypoints, weights):
        return codec.compute_loss(outputs[None], keypoints[None], weights[None])

    def losses(theta: Float[Array, "b 2 3"], batch: dict[str, Array]) -> Float[Array, " b"]:
        outputs = module.apply(model.variables, stn(codec.inputs(batch["image"]), theta))
        keypoints = geometry.transform_points(batch["centered_from_crop"], batch["keypoints"])
        return jax.vmap(one_loss)(outputs, keypoints, batch["weights"])

    along = jax.jit(lambda theta, batch: losses(theta, batch).mean())
    gradient = jax.jit(jax.grad(lambda theta, batch: losses(theta, batch).sum()))
    rng = np.random.default_rng(0)
    curve, slopes = {share: [] for share in SHARES}, {offset: [] for offset in OFFSETS}
    for batch in _batches(run, model.spec, num_batches):
        well_placed = geometry.invert(batch["centered_from_crop"])
        way = theta_from_pixels(well_placed, codec.input_size) - _IDENTITY
        for share, values in curve.items():
            values.append(float(along(_IDENTITY + share * way, batch)))
        for offset, values in slopes.items():
            theta = _IDENTITY + jnp.asarray(rng.normal(0, offset, way.shape), jnp.float32)
            values.append(np.asarray((gradient(theta, batch) * way).sum((1, 2))))
    lines = ["loss: " + "  ".join(f"{s:+.2f} {np.mean(v):.3f}" for s, v in curve.items())]
    for offset, values in slopes.items():
        slope = np.concatenate(values)
        lines.append(
            f"slope at noise {offset}: {slope.mean():.3f} ± {slope.std():.3f}, "
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
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--config", required=True)
    parser.add_argument("--workdir", required=True, type=pathlib.Path)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    use_compilation_cache()

    def show() -> None:
        config = load_ablation(args.config)
        for training in (FULL, Training("jitter", sstn=True, parallel=True)):
            stage, _ = second_stage(config, training, args.seed, args.workdir)
            print(f"{training.name}\n{guidance(stage)}")

    return run(show)


if __name__ == "__main__":
    sys.exit(main())
