import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.training.mesh import Layout, device_mesh, fsdp_spec

HERE = pathlib.Path(__file__).parent
WAYS = ("replicated", "fsdp")


@pytest.fixture(scope="module")
def eight(tmp_path_factory, compiled_programs):
    """What `on_eight_devices.py` found, and its checkpoints."""
    folder = tmp_path_factory.mktemp("eight") / "checkpoints"
    environment = {
        **os.environ,
        **compiled_programs,
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join((str(HERE.parents[1]), str(HERE.parent))),
    }
    command = [sys.executable, str(HERE / "on_eight_devices.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_eight_devices_do_what_one_does(eight, way):
    """Batch norms included: their statistics are those of the whole batch, in both of its parts."""
    found, _ = eight
    assert found["devices"] == 8
    assert found[way]["losses"] < 1e-6
    assert found[way]["state"] < 1e-5  # parameters, statistics, averages, the optimizer's state


@pytest.mark.slow
def test_large_arrays_are_divided_among_the_devices(eight):
    """Of parameters (by their averages) and of Adam's moments."""
    divided, whole = eight[0]["fsdp"], eight[0]["replicated"]
    assert divided["kernel"] == whole["kernel"] == whole["shard"]
    assert divided["shard"] == divided["kernel"] / 8
    assert whole["moments"] == [divided["kernel"]] * 2
    assert divided["moments"] == [divided["kernel"] / 8] * 2


@pytest.mark.slow
def test_a_step_gathers_parameters_once_and_nothing_else(eight):
    """Left to itself, the compiler gathers activations instead where it likes."""
    assert eight[0]["fsdp"]["gathered"] == eight[0]["fsdp"]["large"] > 0
    assert eight[0]["replicated"]["gathered"] == 0


@pytest.mark.slow
def test_checkpoints_are_restored_in_other_layouts(eight):
    moved = eight[0]["moved"]
    assert len(moved) == 6
    assert all(moved.values()), moved


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_a_checkpoint_of_eight_devices_is_read_on_one(eight, way):
    found, folder = eight
    variables, meta = load_variables(folder / f"trained {way}")
    kernel = variables["params"]["conv"]["kernel"]
    assert meta["step"] == 3
    assert len(kernel.sharding.device_set) == 1
    assert np.asarray(kernel).sum() == pytest.approx(found[way]["sum of kernel"], abs=1e-3)


@pytest.mark.parametrize(
    ("shape", "devices", "expected"),
    [
        ((3, 3, 512, 2048), 8, (None, None, None, "data")),  # the largest
        ((7, 7, 2048, 17), 8, (None, None, "data")),  # 17 does not divide
        ((512, 512), 8, ("data",)),  # the first of equals
        ((768, 3072), 5, ()),  # none divides
        ((768, 3075), 6, ("data",)),  # only the smaller one divides
        ((768, 3072), 1, ()),
        ((256, 256), 8, ("data",)),  # the smallest that is divided
        ((255, 256), 8, ()),
        ((2**20,), 8, ("data",)),
        ((), 8, ()),
        ((0, 2**20), 8, ()),
    ],
)
def test_the_dimension_that_is_divided(shape, devices, expected):
    assert fsdp_spec(shape, devices) == PartitionSpec(*expected)


def test_a_smaller_array_may_be_divided_too():
    assert fsdp_spec((16, 8), 8, smallest=128) == PartitionSpec("data")
    assert fsdp_spec((16, 8), 8, smallest=129) == PartitionSpec()


def test_a_replicated_state_is_not_copied_to_be_evaluated():
    layout = Layout(device_mesh())
    tree = layout.put({"kernel": jax.numpy.ones((4, 4))})
    assert layout.whole(tree)["kernel"] is tree["kernel"]
