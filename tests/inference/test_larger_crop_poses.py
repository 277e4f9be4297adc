"""A network whose crops are larger than its views: files, poses and exported functions."""

import dataclasses
import json

import bright
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rmpe_jax.config import default_config, model_spec, parse_config, spec_to_dict
from rmpe_jax.config.spec import spec_from_dict
from rmpe_jax.experiments.export import pose_function
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.model_io.model_file import load_model, save_model
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model, save_pose_model

pytestmark = pytest.mark.usefixtures("bright_network")

CROP = (128, 96)  # twice the view, bright.INPUT_SIZE


def larger(decode: str = "crop") -> PoseModel:
    """The network "bright" inside a transformer whose theta is the identity."""
    sppe = bright.pose_model()
    config = default_config()
    config.model.name, config.model.input_size = "bright", CROP
    config.model.mean, config.model.std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    config.sstn.enabled, config.sstn.context, config.sstn.decode = True, 2.0, decode
    config.data.padding = 2.5
    spec = model_spec(parse_config(config))
    variables = spec.module().init(jax.random.key(0), jnp.zeros((1, *CROP, 3)))
    variables = jax.tree.map(np.asarray, variables)
    for kind, parts in sppe.variables.items():
        variables[kind]["sppe"] = parts
    return sppe._replace(spec=spec, variables=variables)


def test_a_file_brings_the_context_back(tmp_path):
    model = larger("view")
    path = tmp_path / "model.safetensors"
    save_pose_model(path, model)
    found = load_pose_model(path)
    assert found.spec == model.spec
    assert found.spec.view_size == bright.INPUT_SIZE
    assert found.spec.view_padding == 1.25
    assert found.build()[1] == model.build()[1]
    variables, meta = load_model(path)
    del meta["config"]["sstn"]["context"]
    save_model(path, variables, meta)
    older = load_pose_model(path).spec
    assert (older.context, older.view_size) == (1.0, CROP)
    assert spec_from_dict(json.loads(json.dumps(spec_to_dict(model.spec)))) == model.spec


@pytest.mark.slow
@pytest.mark.parametrize("decode", ["crop", "view"])
def test_poses_are_those_of_the_network_alone(decode):
    """At the identity it sees the same pixels; with flip test, folded, in a compiled program."""
    centers = [(80.3, 60.8)]
    image, boxes = bright.spots((140, 180), centers), bright.boxes_around(centers)
    found, expected = (
        PoseEstimator(model, flip_test=True, batch_size=1).estimate(image, boxes.bboxes)
        for model in (larger(decode), bright.pose_model())
    )
    assert np.isfinite(found.keypoints).all()
    np.testing.assert_allclose(found.keypoints, expected.keypoints, atol=0.02)
    np.testing.assert_allclose(found.keypoints[0], np.tile(centers, (17, 1)), atol=1)


@pytest.mark.parametrize("decode", ["crop", "view"])
def test_exported_functions_take_the_whole_crop(decode):
    model = larger(decode)
    run, codec = pose_function(model, "heatmaps")
    assert codec.input_size == CROP
    crops = jax.ShapeDtypeStruct((2, *CROP, 3), jnp.float32)
    assert jax.eval_shape(run, crops).shape == (2, 32, 24, 17)
    run, _ = pose_function(model, "keypoints")
    points, _ = jax.eval_shape(run, jax.ShapeDtypeStruct((2, *CROP, 3), jnp.uint8))
    assert points.shape == (2, 17, 2)


def test_the_crop_is_as_configured():
    spec = larger().spec
    assert (spec.crop.input_size, spec.crop.padding) == (CROP, 2.5)
    view = bright.pose_model().spec.crop
    assert view.with_context(2.0) == spec.crop
    assert dataclasses.replace(spec, context=1.0).view_size == CROP
