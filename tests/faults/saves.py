"""Saves many checkpoints one after the other: `saves.py FOLDER`.

It goes on after the newest that can be read, whose content must be that of its step.
"""

import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np

from rmpe_jax.config import default_config, parse_config
from rmpe_jax.errors import UserError
from rmpe_jax.training.checkpoints import Checkpoints
from rmpe_jax.training.state import TrainState

LAST_STEP = 40


def state_of(step: int) -> TrainState:
    """A state whose numbers all follow from the step."""
    params = {"conv": {"kernel": jnp.full((64, 256), step + 0.1), "bias": jnp.arange(4.0) * step}}
    variables = {"params": params, "batch_stats": {"bn": {"mean": jnp.full(5, step - 0.3)}}}
    moments = {"mu": jnp.full((64, 256), step * 1e-3)}
    ema = jax.tree.map(lambda x: x / 3, variables)
    opt_state = (moments, (), jnp.int32(step))
    return TrainState(step=jnp.int32(step), **variables, ema=ema, opt_state=opt_state)


def is_whole(state: TrainState) -> bool:
    """Whether all numbers of a state are of its step."""
    expected = state_of(int(state.step))
    same = jax.tree.map(lambda a, b: np.array_equal(np.asarray(a), np.asarray(b)), state, expected)
    return all(jax.tree.leaves(same))


def main(folder: pathlib.Path) -> None:
    """Saves up to `LAST_STEP`."""
    config = default_config()
    meta = {"config": config.to_dict(), "scores": {}}
    with Checkpoints(folder) as checkpoints:
        found = checkpoints.restore(state_of(0), parse_config(config))
        state = found[0] if found else state_of(0)
        if not is_whole(state):
            raise UserError(f"step {int(state.step)} has values of another")
        for step in range(int(state.step) + 1, LAST_STEP + 1):
            checkpoints.save(state_of(step), meta)


if __name__ == "__main__":
    try:
        main(pathlib.Path(sys.argv[1]))
    except UserError as error:
        sys.exit(str(error))
