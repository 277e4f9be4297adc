"""Greedy assignment: the rule that every NMS here shares, of boxes and of poses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def assign(redundant: Bool[Array, "n n"], valid: Bool[Array, " n"]) -> Int[Array, " n"]:
    """Greedy elimination among proposals that are sorted, the best first.

    Returns:
      The index of each proposal's reference, n where it is not valid.
    """
    nobody = len(valid)
    index = jnp.arange(nobody)

    def visit(i: Int[Array, ""], reference: Int[Array, " n"]) -> Int[Array, " n"]:
        free = (reference == nobody) & valid
        taken = free & free[i] & (redundant[i] | (index == i))
        return jnp.where(taken, i, reference)

    return jax.lax.fori_loop(0, nobody, visit, jnp.full_like(index, nobody))
