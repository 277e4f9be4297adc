"""Networks by name, from a cache of the hub that is made here, and a hub that breaks off."""

import functools
import http.server
import json
import shutil
import threading

import jax
import numpy as np
import pytest

from rmpe_jax import models
from rmpe_jax.errors import UserError
from rmpe_jax.interop import vitpose
from rmpe_jax.interop.hub import fetch_model, is_hub_name
from rmpe_jax.model_io.pose_model import load_pose_model
from rmpe_jax.model_io.read import WEIGHTS
from rmpe_jax.models.vitpose import ViTPose

constants = pytest.importorskip("huggingface_hub.constants")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """cache(repository) makes its folder of files in the cache of the hub, which is offline."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)

    def make(repository):
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs" / "main").write_text(COMMIT)
        (folder / "snapshots" / COMMIT).mkdir(parents=True)
        return folder / "snapshots" / COMMIT

    return make


def test_names():
    assert is_hub_name("hf:somebody/something")
    assert not is_hub_name("runs/hf")
    wrong = ("hf:somebody", "hf:", "hf:a b/c", "hf:a/b@", "hf:../..", "hf:a/b--c", "hf:a/b/../x")
    for name in wrong:
        with pytest.raises(UserError, match=r"names have the form hf:USER/REPOSITORY\[@REVISION\]"):
            fetch_model(name)


def test_a_model_file_of_this_project(cache):
    shutil.copy(WEIGHTS / "pose.safetensors", cache("somebody/poses"))
    expected = load_pose_model("builtin")
    for name in (
        "hf:somebody/poses",
        "hf:somebody/poses/pose.safetensors",
        f"hf:somebody/poses@{COMMIT}",
        f"hf:somebody/poses@{COMMIT}/pose.safetensors",
        "hf:somebody/poses@main",
    ):
        model = load_pose_model(name)
        assert model.spec == expected.spec
        jax.tree.map(np.testing.assert_array_equal, model.variables, expected.variables)


def test_a_vitpose(cache, monkeypatch, tmp_path):
    """Also from the folder itself, by its path."""
    from test_vitpose_checkpoints import save_folder, variables_of

    tiny = functools.partial(
        ViTPose, width=24, depth=2, num_heads=3, expert_width=0, simple_head=False
    )
    monkeypatch.setitem(models._MODELS, "vitpose_s", tiny)
    monkeypatch.setattr(vitpose, "VITPOSE_MODELS", {"vitpose_s": tiny})
    variables = variables_of("vitpose_s")
    folder = cache("somebody/vitpose")
    shutil.copytree(save_folder(tmp_path / "model", variables), folder, dirs_exist_ok=True)
    for name in ("hf:somebody/vitpose", folder):
        model = load_pose_model(name)
        assert model.spec.alignment == "udp"
        jax.tree.map(np.testing.assert_array_equal, model.variables, variables)
    assert load_pose_model("hf:somebody/vitpose").version == "hf:somebody/vitpose"


def test_what_is_not_there_is_one_line(cache):
    (cache("somebody/other") / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for name, says in (
        ("hf:nobody/nothing", "not in the cache and the hub cannot be reached"),
        ("hf:somebody/other/gone.safetensors", "not in the cache and the hub cannot be reached"),
        (f"hf:somebody/other@{'f' * 40}", "not in the cache and the hub cannot be reached"),
        ("hf:somebody/other", "neither a ViTPose nor a model file"),
    ):
        with pytest.raises(UserError, match=says) as info:
            load_pose_model(name)
        assert "\n" not in str(info.value)


class BrokenHub(http.server.BaseHTTPRequestHandler):
    """A hub with one repository, which drops the connection within the weights."""

    protocol_version = "HTTP/1.1"
    weights = 5_000_000  # bytes, as announced

    def do_HEAD(self):
        self.send_file(self.weights if self.path.endswith(".safetensors") else 2)

    def do_GET(self):
        if "/tree/" in self.path:
            entry = {"type": "file", "path": "model.safetensors", "oid": "b" * 40}
            self.send_json([entry | {"size": self.weights}])
        elif "/api/models/" in self.path:
            files = [{"rfilename": "model.safetensors"}]
            self.send_json({"id": "a/b", "modelId": "a/b", "sha": COMMIT, "siblings": files})
        else:
            self.send_file(self.weights)
            self.wfile.write(b"x" * 1000)
            self.wfile.flush()
            self.close_connection = True

    def send_json(self, content):
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, size):
        self.send_response(200)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{"b" * 64}"')
        self.send_header("Content-Length", str(size))
        self.end_headers()

    def log_message(self, *_):
        pass


def test_a_connection_that_breaks_is_one_line(tmp_path, monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), BrokenHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    for name, value in (
        ("ENDPOINT", address),
        ("HUGGINGFACE_CO_URL_TEMPLATE", template),
        ("HF_HUB_CACHE", str(tmp_path)),
        ("HF_HUB_DISABLE_XET", True),
    ):
        monkeypatch.setattr(constants, name, value)
    try:
        with pytest.raises(UserError) as info:
            fetch_model("hf:a/b")
    finally:
        server.shutdown()
        server.server_close()
    line = str(info.value)
    assert line.startswith("hf:a/b: the download failed (RemoteProtocolError): check network")
    assert "\n" not in line
