"""Uploads to the hub, with a hub that only remembers what it is given."""

import sys
import types
from typing import Any

import pytest

from rmpe_jax import cli
from rmpe_jax.errors import UserError
from rmpe_jax.experiments.push import model_card, push_model
from rmpe_jax.interop.hub import push_files
from rmpe_jax.model_io.model_file import load_model
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.model_io.read import WEIGHTS

huggingface_hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")
yaml = pytest.importorskip("yaml")

NAME = "hf:somebody/poses"
FILES = {"pose.safetensors": b"weights", "README.md": b"card"}


class Hub:
    """The calls of `HfApi` that an upload makes."""

    def __init__(self):
        self.repositories: dict[str, bool] = {}  # whether private
        self.files: dict[str, bytes] = {}
        self.error: Exception | None = None

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        if self.error:
            raise self.error
        self.repositories.setdefault(repo_id, private)
        return f"https://hub/{repo_id}"

    def repo_info(self, repo_id):
        return type("Info", (), {"private": self.repositories[repo_id]})

    def create_commit(self, repo_id, operations, *, commit_message):
        assert repo_id in self.repositories
        assert commit_message.startswith("Upload ")
        for operation in operations:
            with operation.as_file() as file:
                self.files[operation.path_in_repo] = file.read()


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    return hub


def front_matter(card: bytes) -> dict:
    _, head, _ = card.decode().split("---\n")
    return yaml.safe_load(head)


def test_a_model_file(hub, capsys):
    file = WEIGHTS / "pose.safetensors"
    assert cli.main(["push", str(file), NAME, "--license", "apache-2.0"]) == 0
    assert capsys.readouterr().out == (
        f"uploaded to https://hub/somebody/poses; use it with --model={NAME}\n"
    )
    assert hub.repositories == {"somebody/poses": False}
    assert hub.files["pose.safetensors"] == file.read_bytes()
    head = front_matter(hub.files["README.md"])
    assert head["license"] == "apache-2.0"
    assert head["library_name"] == "rmpe_jax"
    assert head["pipeline_tag"] == "keypoint-detection"
    card = hub.files["README.md"].decode()
    assert "# poses\n" in card
    assert f"rmpe predict photo.jpg --model={NAME}\n" in card
    assert "| parameters | 6,240,753 |" in card
    assert "| joints | 17, coco |" in card
    assert "| crops | 256x192 pixels |" in card
    assert "| terms | Apache-2.0; training data of MPII and LSP are for research |" in card


def test_what_is_not_a_model_file_becomes_one(hub, tmp_path):
    """With what is known about it, pose NMS included if there is one."""
    push_model("builtin", NAME, "apache-2.0")
    file = tmp_path / "pose.safetensors"
    file.write_bytes(hub.files["pose.safetensors"])
    pushed, expected = load_pose_model(file), load_pose_model("builtin")
    assert pushed.spec == expected.spec
    assert pushed.nms == expected.nms
    assert load_model(file)[1]["about"] == load_model(WEIGHTS / "pose.safetensors")[1]["about"]


def test_a_card_in_one_cell():
    card = model_card(load_pose_model("builtin"), NAME, "other", {"a": "x|y\nz", "b": {"c": 1}})
    assert '\n| a | x\\|y z |\n| b | {"c": 1} |\n' in card


def test_private(hub):
    push_files(NAME, FILES, private=True)
    assert hub.repositories == {"somebody/poses": True}
    push_files(NAME, {"README.md": b"another", "pose.safetensors": b"weights"}, private=True)
    assert hub.files == {**FILES, "README.md": b"another"}


def test_a_public_repository_does_not_get_private_weights(hub):
    hub.repositories["somebody/poses"] = False
    with pytest.raises(UserError, match="exists and is public"):
        push_files(NAME, FILES, private=True)
    assert hub.files == {}


def refused(status: int) -> Exception:
    response: Any = types.SimpleNamespace(headers={}, request=None, status_code=status)
    return errors.HfHubHTTPError("no\nno", response=response)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (refused(403), "the hub refuses (status 403)"),
        (errors.OfflineModeIsEnabled("x"), "the hub cannot be reached (Offline"),
        (errors.HTTPError("no route"), "the hub cannot be reached (HTTPError)"),
        (errors.HFValidationError("no -- in names"), "no -- in names"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_hub_that_refuses_is_one_line(hub, error, says):
    hub.error = error
    with pytest.raises(UserError) as info:
        push_files(NAME, FILES)
    assert str(info.value).startswith(f"{NAME}: {says}")
    assert "\n" not in str(info.value)


def test_without_login_nothing_is_sent(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    with pytest.raises(UserError, match="not logged in: run `hf auth login`"):
        push_files(NAME, FILES)
    assert hub.repositories == {}


def test_without_network(monkeypatch):
    """The library itself, with an address where nothing answers."""
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    api = huggingface_hub.HfApi(endpoint="http://127.0.0.1:9", token="token")
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: api)
    with pytest.raises(UserError, match=r"the hub cannot be reached \(ConnectError\)"):
        push_files(NAME, FILES)


def test_without_the_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(UserError, match=r"needs huggingface_hub: pip install 'rmpe_jax\[hub\]'"):
        push_files(NAME, FILES)


@pytest.mark.parametrize("name", ["somebody/poses", f"{NAME}@main", f"{NAME}/file", "hf:poses"])
def test_names_that_cannot_be(hub, name):
    with pytest.raises(UserError, match="give the repository as hf:USER/REPOSITORY"):
        push_files(name, FILES)


def test_a_detector_is_not_pushed(hub, tmp_path):
    with pytest.raises(UserError, match="detector"):
        push_model(WEIGHTS / "detector.safetensors", NAME, "mit")
    assert hub.repositories == {}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ([], "the following arguments are required: --license"),
        (["--license", "Apache 2"], "'Apache 2' is not an identifier such as apache-2.0"),
    ],
)
def test_the_license_is_required(options, says, capsys):
    with pytest.raises(SystemExit):
        cli.main(["push", "builtin", NAME, *options])
    assert says in capsys.readouterr().err
