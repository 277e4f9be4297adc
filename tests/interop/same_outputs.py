"""Compares a converted network with the torch network that it was converted from."""

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")


def assert_same_outputs(network, checkpoint, size=(64, 32)):
    """Our outputs for random images are within 1e-4 of the largest of torch's."""
    x = np.random.default_rng(0).standard_normal((2, *size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
    actual = jax.jit(checkpoint.spec.build()[0].apply)(checkpoint.variables, x)
    for theirs, ours in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        theirs = theirs.numpy()
        theirs = theirs.transpose(0, 2, 3, 1) if theirs.ndim == 4 else theirs
        assert theirs.std() > 0.01
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
