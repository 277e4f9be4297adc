"""Functions of JAX as one program each.

An operation on JAX arrays outside of a program is compiled by itself, once per shape: this takes
most of the time of a small test.
"""

import functools
from collections.abc import Callable

import jax


def compiled(function: Callable, *static: int) -> Callable:
    """`function`, compiled, with results in NumPy; the arguments at `static` are no arrays."""
    program = jax.jit(function, static_argnums=static)

    @functools.wraps(function)
    def call(*arguments, **named):
        return jax.device_get(program(*arguments, **named))

    return call
