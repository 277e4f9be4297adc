"""Model files: what is written comes back, whatever else is refused in one line."""

import json
import os
import pickle

import jax
import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rmpe_jax.errors import UserError
from rmpe_jax.model_io.model_file import load_model, save_model

META = {"config": {"model": {"name": "tinypose_s", "mean": [0.5, 0.25, 0]}}, "card": "für alle"}


def network() -> dict:
    rng = np.random.default_rng(0)
    return {
        "params": {
            "backbone": {"conv": {"kernel": rng.normal(size=(3, 3, 4, 8)).astype(np.float32)}},
            "head": {"bias": rng.normal(size=8).astype(np.float32)},
        },
        "batch_stats": {"bn": {"mean": np.zeros(8, np.float32), "var": np.full(8, 1e-9, "f")}},
    }


def same(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


def test_what_is_written_comes_back(tmp_path):
    path = tmp_path / "new" / "m.safetensors"
    save_model(path, network(), META)
    variables, meta = load_model(path)
    assert same(variables, network())
    assert meta == META
    assert os.listdir(path.parent) == ["m.safetensors"]


def test_jax_arrays_and_views_come_back_too(tmp_path):
    kernel = np.arange(24, dtype=np.float32).reshape(2, 3, 4).T
    save_model(tmp_path / "m", {"params": {"a": kernel, "b": jax.numpy.float32(3)}}, {})
    found = load_model(tmp_path / "m")[0]["params"]
    np.testing.assert_array_equal(found["a"], kernel)
    assert found["b"].shape == ()
    assert found["b"] == 3


def test_half_precision_halves_the_kernels_alone(tmp_path):
    save_model(tmp_path / "full", network(), {})
    save_model(tmp_path / "half", network(), {}, half=True)
    saved = (tmp_path / "full").stat().st_size - (tmp_path / "half").stat().st_size
    assert abs(saved - 2 * 3 * 3 * 4 * 8) < 64
    found, _ = load_model(tmp_path / "half")
    kernel = network()["params"]["backbone"]["conv"]["kernel"]
    np.testing.assert_array_equal(
        found["params"]["backbone"]["conv"]["kernel"], kernel.astype(np.float16)
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}
    assert same(found["batch_stats"], network()["batch_stats"])  # 1e-9 would be 0 in float16


@given(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=2), elements=st.floats(-6e4, 6e4, width=32))
)
def test_half_precision_is_within_a_2048th(tmp_path_factory, array):
    path = tmp_path_factory.getbasetemp() / "half.safetensors"
    save_model(path, {"params": array}, {}, half=True)
    found = load_model(path)[0]["params"]
    assert (np.abs(found - array) <= np.maximum(np.abs(array) / 2048, 2**-24)).all()


def test_too_large_for_half_precision(tmp_path):
    with pytest.raises(UserError, match="params/k has values that float16 cannot hold"):
        save_model(tmp_path / "m", {"params": {"k": np.full((1, 1), 7e4)}}, {}, half=True)
    assert os.listdir(tmp_path) == []


def other_files(folder):
    header = json.dumps({"__metadata__": {"a": "b"}}).encode()
    return {
        "empty": b"",
        "pickle": pickle.dumps(network()),
        "no config": len(header).to_bytes(8, "little") + header,
        "no JSON": safetensors.numpy.save({"a": np.zeros(1)}, {"rmpe_jax": "{"}),
        "no object": safetensors.numpy.save({"a": np.zeros(1)}, {"rmpe_jax": "[1]"}),
        "no tree": safetensors.numpy.save(
            {"a": np.zeros(1), "a/b": np.zeros(1)}, {"rmpe_jax": "{}"}
        ),
        "cut": (folder / "m").read_bytes()[:-100],
        "endless header": (2**62).to_bytes(8, "little"),
    }


OTHERS = (
    "empty",
    "pickle",
    "no config",
    "no JSON",
    "no object",
    "no tree",
    "cut",
    "endless header",
)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_files_are_refused_in_one_line(tmp_path, kind):
    save_model(tmp_path / "m", network(), META)
    (tmp_path / "other").write_bytes(other_files(tmp_path)[kind])
    with pytest.raises(UserError, match="not a model file of rmpe_jax, or is damaged") as error:
        load_model(tmp_path / "other")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0f\nsize 9\n", "Git LFS pointer"),
        (b"<!doctype html><html>", "web page"),
    ],
)
def test_failed_downloads_are_named(tmp_path, content, line):
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(UserError, match=f"other is a {line}, not the file itself: "):
        load_model(tmp_path / "other")


def test_a_file_that_is_not_there_or_cannot_be_written(tmp_path):
    with pytest.raises(UserError, match="none cannot be read"):
        load_model(tmp_path / "none")
    with pytest.raises(UserError, match="cannot be read"):
        load_model(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        save_model(tmp_path / "file" / "m", network(), META)
