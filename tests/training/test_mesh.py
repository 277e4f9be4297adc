import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.training.mesh import join_processes

HERE = pathlib.Path(__file__).parent


@pytest.fixture(scope="module")
def eight(tmp_path_factory, compiled_programs):
    """What `on_eight_devices.py` found, and its checkpoints."""
    folder = tmp_path_factory.mktemp("eight") / "checkpoints"
    environment = {
        **os.environ,
        **compiled_programs,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "PYTHONPATH": os.pathsep.join((str(HERE.parents[1]), str(HERE.parent))),
    }
    command = [sys.executable, str(HERE / "on_eight_devices.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


def test_eight_devices_do_what_one_does(eight):
    """Batch norms included: their statistics are those of the whole batch, in both of its parts."""
    found, _ = eight
    assert found["devices"] == 8
    assert found["losses"] < 1e-6
    assert found["state"] < 1e-5
    assert found["programs"] == 1


def test_a_checkpoint_of_eight_devices_is_read_on_one(eight):
    found, folder = eight
    variables, meta = load_variables(folder)
    kernel = variables["params"]["conv"]["kernel"]
    assert meta["step"] == 3
    assert len(kernel.sharding.device_set) == 1
    assert np.asarray(kernel).sum() == pytest.approx(found["sum of kernel"], abs=1e-4)


@pytest.mark.parametrize(("count", "number"), [(None, 0), (2, None), (2, 2), (2, -1)])
def test_processes_that_do_not_know_their_place(count, number):
    with pytest.raises(UserError, match="give the number of processes") as error:
        join_processes("localhost:1234", count, number)
    assert "\n" not in str(error.value)
