"""The import hook of `conftest.py` checks annotations while the tests run."""

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from rmpe_jax.ops import geometry, losses
from rmpe_jax.pgpg.model import global_model


def test_wrong_shapes_raise():
    logits, weights = jnp.zeros((2, 4, 4, 3)), jnp.zeros((2, 3))
    for loss in (losses.mse, jax.jit(losses.mse)):
        assert loss(logits, logits, weights) == 0
        with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'weights'"):
            loss(logits, logits, jnp.zeros((2, 4)))


def test_wrong_types_of_elements_raise():
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'bboxes'"):
        geometry.box_area(np.zeros((2, 4), int))


def test_wrong_fields_of_dataclasses_raise():
    model = global_model()
    with pytest.raises(jaxtyping.TypeCheckError, match="parameter 'means'"):
        type(model)(model.joints, model.atoms, model.weights, model.means[0], model.covariances)
