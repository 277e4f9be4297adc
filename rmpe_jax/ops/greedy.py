"""Greedy assignment: the elimination rule shared by every NMS of boxes and of poses."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def greedy_assignment(redundant: Bool[Array, "n n"], valid: Bool[Array, " n"]) -> Int[Array, " n"]:
    """Greedy elimination among candidates that are sorted, best first.

    Args:
      redundant: `[i, j]` says whether candidate i eliminates candidate j.
      valid: where there is a candidate; the rest is padding.

    Returns:
      The index of the reference that each candidate is assigned to, its own if it stays, and n if
      it is not valid.
    """
    unassigned = len(valid)
    index = jnp.arange(unassigned)

    def visit(i: Int[Array, ""], reference: Int[Array, " n"]) -> Int[Array, " n"]:
        free = (reference == unassigned) & valid
        taken = free & free[i] & (redundant[i] | (index == i))
        return jnp.where(taken, i, reference)

    return jax.lax.fori_loop(0, unassigned, visit, jnp.full_like(index, unassigned))
