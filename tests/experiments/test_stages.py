import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.experiments import stages
from rmpe_jax.training import loop

CONFIG = """
from rmpe_jax.config import default_config

def get_config(model="tinypose_s"):
    config = default_config()
    config.model.name = model
    return config
"""


@pytest.fixture
def trained(monkeypatch):
    """What would have been trained, (network, workdir) in order."""
    calls = []
    monkeypatch.setattr(loop, "train", lambda config, workdir: calls.append((config, workdir)))
    return calls


@pytest.fixture
def path(tmp_path):
    (tmp_path / "c.py").write_text(CONFIG)
    return tmp_path / "c.py"


def test_stages_in_order(path, trained):
    stages.run_stages([f"{path}=one", f"{path}:tinypose_m=b"])
    assert [(config.model.name, workdir) for config, workdir in trained] == [
        ("tinypose_s", "one"),
        ("tinypose_m", "b"),
    ]


def test_nothing_is_trained_if_a_later_stage_cannot_be(path, trained):
    with pytest.raises(UserError, match="did you mean 'tinypose_m'"):
        stages.run_stages([f"{path}=one", f"{path}:tinypose_mm=two"])
    assert not trained


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("configs/a.py", "must be CONFIG=WORKDIR"),
        ("configs/a.py=", "must be CONFIG=WORKDIR"),
        ("nowhere.py:demo=run", "nowhere.py: there is no such config file"),
        ("{empty}=run", "it has no function get_config"),
    ],
)
def test_a_stage_that_cannot_be(tmp_path, trained, stage, says):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=says):
        stages.run_stages([stage.format(empty=tmp_path / "empty.py")])
    assert not trained
