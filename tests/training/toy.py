"""Networks that compile in no time, for tests of everything around them.

Run as a script it is `train.py` that knows them too.
"""

import functools
import json
import pathlib
import runpy
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax import models
from rmpe_jax.config import validation
from rmpe_jax.models.layers import BatchNorm


class Stem(nn.Module):
    """(b, h, w, 3) -> (b, h/4, w/4, 8)."""

    batch_norm: bool

    @nn.compact
    def __call__(self, x, train):
        # A bias before a batch norm has no gradient but noise, which Adam makes much of.
        x = nn.Conv(8, (4, 4), strides=4, use_bias=not self.batch_norm, name="conv")(x)
        if self.batch_norm:
            x = BatchNorm(train, name="bn")(x)
        return nn.relu(x)


class Toy(nn.Module):
    """(b, h, w, 3) -> (b, h/4, w/4, k)."""

    num_keypoints: int
    dtype: object = jnp.float32
    batch_norm: bool = True
    width: int = 16

    @nn.compact
    def __call__(self, x, train=False):
        x = Stem(self.batch_norm, name="backbone")(x.astype(self.dtype), train)
        x = nn.Conv(self.width, (5, 5), dtype=self.dtype, name="conv")(x)
        return nn.Conv(self.num_keypoints, (3, 3), name="conv_out")(nn.relu(x.astype(jnp.float32)))


NETWORKS = {
    "toy": Toy,
    "toy_plain": functools.partial(Toy, batch_norm=False),
    "toy_wide": functools.partial(Toy, width=512),  # its last two kernels are large
}


def register(patch=setattr) -> None:
    """Makes `NETWORKS` known by name; `patch` is as `setattr` or `monkeypatch.setattr`."""
    patch(models, "_MODELS", {**models._MODELS, **NETWORKS})
    patch(validation, "SPPE_NAMES", (*models.SPPE_NAMES, *NETWORKS))


def settings(demo: pathlib.Path) -> dict:
    """Four steps of a toy network on the scenes, saved every two, evaluated never."""
    return {
        "total_steps": 4,
        "batch_size": 4,
        "log_every": 1,
        "checkpoint_every": 2,
        "evaluate_every": 0,
        "model.name": "toy",
        "model.input_size": (32, 32),
        "codec.decode": "argmax",
        "data.train": (f"coco:{demo}",),
        "optim.schedule": "constant",
        "optim.ema_decay": 0.9,
    }


def joints_as_fractions(annotation: dict) -> None:
    """Divides the joints of an annotation of the scenes by the width of the image."""
    joints = annotation["keypoints"]
    annotation["keypoints"] = [v if i % 3 == 2 else v / 160 for i, v in enumerate(joints)]


def same(a, b) -> bool:
    """Are two trees equal, bit for bit?"""
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(np.asarray(x), np.asarray(y), equal_nan=True)
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def metrics_of(workdir) -> list[dict]:
    """The lines of a run's metrics."""
    lines = (pathlib.Path(workdir) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


if __name__ == "__main__":
    register()
    script = pathlib.Path(__file__).parents[2] / "train.py"
    sys.argv[0] = str(script)
    runpy.run_path(str(script), run_name="__main__")
