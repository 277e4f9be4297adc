import json

import jax
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.pose_nms import PoseNmsParams, load_params, params_from_dict, params_to_dict

PRESETS = ("paper", "rmpe", "alphapose", "rmpe_body", "alphapose_whole_body")


@pytest.mark.parametrize("preset", PRESETS)
def test_file_round_trip(preset, tmp_path):
    params = PoseNmsParams.preset(preset)
    (tmp_path / "params.json").write_text(json.dumps(params_to_dict(params)))
    assert load_params(tmp_path / "params.json") == params
    assert load_params(preset) == params


def test_numbers_are_leaves_and_the_variant_is_static():
    params = PoseNmsParams.preset("alphapose")
    assert jax.tree.leaves(params) == [1.0, 2.65, 1.7, 22.48]
    doubled = jax.tree.map(lambda v: 2 * v, params)
    assert (doubled.eta, doubled.variant) == (44.96, params.variant)


@pytest.mark.parametrize("preset", PRESETS)
def test_older_files_call_the_variant_form(preset, tmp_path):
    params = PoseNmsParams.preset(preset)
    content = params_to_dict(params)
    assert list(content) == ["sigma1", "sigma2", "lam", "eta", "variant"]
    content["form"] = content.pop("variant")
    assert params_from_dict(content) == params
    (tmp_path / "params.json").write_text(json.dumps(content))
    assert load_params(tmp_path / "params.json") == params


def test_unknown_preset():
    with pytest.raises(UserError, match="no preset 'mmpose': use one of paper, rmpe, alphapose"):
        PoseNmsParams.preset("mmpose")


def test_bad_files(tmp_path):
    path = tmp_path / "params.json"
    with pytest.raises(UserError, match=r"params.json cannot be read \(No such file"):
        load_params(path)
    path.write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        load_params(path)
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"params\.json: pose NMS parameters need sigma1"):
        load_params(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"eta": None}, "need sigma1"),
        ({"sigma2": 0}, "must be positive"),
        ({"lam": float("nan")}, "must be positive"),
        ({"variant": {"region": "disc"}}, "need sigma1"),
        ({"variant": None}, "need sigma1"),
    ],
)
def test_bad_content(change, message):
    with pytest.raises(UserError, match=message):
        params_from_dict(params_to_dict(PoseNmsParams.preset("rmpe")) | change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"squared": "no"}, "need sigma1"),
        ({"min_matches": 1.5}, "need sigma1"),
        ({"min_matches": -1}, "min_matches and min_peak are 0 or more"),
        ({"min_peak": float("inf")}, "min_matches and min_peak are 0 or more"),
        ({"reference": 0}, "must be positive"),
        ({"reference": 10**400}, "need sigma1"),
    ],
)
def test_bad_values_in_the_variant(change, message):
    content = params_to_dict(PoseNmsParams.preset("rmpe"))
    content["variant"] |= change
    with pytest.raises(UserError, match=message):
        params_from_dict(content)


def test_unknown_choice_in_the_variant():
    content = params_to_dict(PoseNmsParams.preset("rmpe"))
    content["variant"]["merge"] = "mean"
    with pytest.raises(UserError, match="merge is not one of none, max, soft"):
        params_from_dict(content)


def test_files_from_before_there_were_whole_bodies():
    content = params_to_dict(PoseNmsParams.preset("rmpe"))
    del content["variant"]["joints"], content["variant"]["reference"]
    assert params_from_dict(content) == PoseNmsParams.preset("rmpe")
    content["variant"]["joints"] = "feet"
    with pytest.raises(UserError, match="joints is not one of all, body, parts"):
        params_from_dict(content)
