"""Runs whose workdir is an address: in a folder that stands in for a store, and in an emulator.

The emulator is of Google Cloud Storage: `pip install gcsfs gcp-storage-emulator`.
"""

import json
import logging
import re
import socket

import pytest
from etils import epath
from toy import metrics_of, same

from rmpe_jax import object_store
from rmpe_jax.errors import UserError
from rmpe_jax.model_io.checkpoints import load_variables
from rmpe_jax.model_io.read import read_network
from rmpe_jax.object_store import is_address, open_path
from rmpe_jax.training import run_files
from rmpe_jax.training.loop import train
from rmpe_jax.training.run_files import RunFiles, open_run_files


def test_addresses():
    for name in ("gs://bucket/run", "gs:/bucket/run", "s3://bucket"):
        assert is_address(name)
    for name in ("run", "/run", "C:/run", "hf:user/repository", "coco:folder:train", "a/gs://b"):
        assert not is_address(name)


def test_paths_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(open_path("run")) == str(tmp_path / "run")


def test_an_unknown_kind_of_store():
    with pytest.raises(UserError, match="xyz://bucket/run: there is no such kind of object store"):
        open_path("xyz://bucket/run")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (ImportError("gcsfs"), r"gs://bucket/run: run `pip install 'rmpe_jax\[gcs\]'` first"),
        (OSError("no route\nmore"), r"gs://bucket/run: cannot be reached \(no route\)"),
    ],
)
def test_a_store_that_does_not_answer(monkeypatch, error, says):
    def fails(self):
        raise error

    monkeypatch.setattr(type(epath.Path("gs://bucket/run")), "exists", fails)
    with pytest.raises(UserError, match=says):
        open_path("gs:/bucket/run")


def test_only_changed_files_are_copied(tmp_path):
    folder, store = tmp_path / "files", epath.Path(tmp_path / "store")
    (folder / "tensorboard").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tensorboard" / "events").write_bytes(b"1")
    files = RunFiles(folder, store)
    files.publish()
    assert (store / "config.json").read_text() == "{}"
    (store / "config.json").write_text("untouched")
    (folder / "tensorboard" / "events").write_bytes(b"12")
    files.publish()
    assert (store / "config.json").read_text() == "untouched"
    assert (store / "tensorboard" / "events").read_bytes() == b"12"


def test_a_store_that_takes_nothing(tmp_path):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "config.json").write_text("{}")
    (tmp_path / "store").write_text("a file")
    files = RunFiles(tmp_path / "files", epath.Path(tmp_path / "store"))
    with pytest.raises(UserError, match=r"store/config.json: cannot be written \(.*; run the same"):
        files.publish()


def test_metrics_that_cannot_be_read(tmp_path, monkeypatch):
    def fails(self):
        raise OSError("no route")

    monkeypatch.setattr(object_store, "_ADDRESS", re.compile(re.escape(str(tmp_path))))
    monkeypatch.setattr(type(epath.Path(tmp_path)), "read_bytes", fails)
    (tmp_path / "metrics.jsonl").write_text("")
    with (
        pytest.raises(UserError, match=r"metrics.jsonl: cannot be read \(no route\); run the same"),
        open_run_files(epath.Path(tmp_path)),
    ):
        pass


def test_a_model_file_in_a_store(bucket):
    with pytest.raises(UserError, match="copy it to this machine"):
        read_network(str(bucket / "net.safetensors"), "pose network")


@pytest.fixture
def bucket(tmp_path, monkeypatch):
    """A folder that is taken for an object store."""
    folder = tmp_path / "bucket"
    monkeypatch.setattr(object_store, "_ADDRESS", re.compile(re.escape(str(folder))))
    return folder


def check_resumed_run(config, workdir, tmp_path):
    """Stopped and resumed, a run in a store has the files and the variables of one in a folder."""
    config.log_every = 1
    train(config, tmp_path / "folder")
    config.total_steps = 2
    train(config, workdir)
    config.total_steps = 4
    train(config, workdir)
    store = open_path(workdir)
    lines = [json.loads(line) for line in (store / "metrics.jsonl").read_text().splitlines()]
    local = metrics_of(tmp_path / "folder")
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["train/loss"] for line in lines] == [line["train/loss"] for line in local]
    assert json.loads((store / "config.json").read_text())["total_steps"] == 4
    found, meta = load_variables(store / "checkpoints")
    expected, _ = load_variables(tmp_path / "folder" / "checkpoints")
    assert meta["step"] == 4
    assert same(found, expected)
    _, variables, read = read_network(workdir, "pose network", "last")
    assert read["version"] == "step 4"
    assert same(variables["params"], expected["params"])


def test_a_run_in_a_store(config, bucket, tmp_path, capsys):
    check_resumed_run(config, str(bucket / "run"), tmp_path)
    assert f"{bucket / 'run'}: an object store has no locks: start one" in capsys.readouterr().err


def test_metrics_are_copied_with_each_checkpoint(config, bucket, monkeypatch):
    copied = []
    publish = RunFiles.publish

    def noted(self):
        publish(self)
        path = bucket / "run" / "metrics.jsonl"
        copied.append(path.read_text().count("\n") if path.exists() else 0)

    monkeypatch.setattr(run_files.RunFiles, "publish", noted)
    config.log_every, config.checkpoint_every = 1, 2
    train(config, str(bucket / "run"))
    assert copied == [0, 2, 4]


@pytest.fixture
def emulated(monkeypatch):
    """The address of a bucket in an emulator of Google Cloud Storage."""
    pytest.importorskip("gcsfs")
    server = pytest.importorskip("gcp_storage_emulator.server", exc_type=ImportError)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    for name in ("STORAGE_EMULATOR_HOST", "TENSORSTORE_GCS_HTTP_URL"):
        monkeypatch.setenv(name, url)
    monkeypatch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
    logging.getLogger("gcsfs").setLevel(logging.ERROR)  # it looks for credentials
    emulator = server.create_server("localhost", port, in_memory=True, default_bucket="bucket")
    emulator.start()
    yield "gs://bucket"
    emulator.stop()


def test_a_run_in_googles_store(config, emulated, tmp_path):
    check_resumed_run(config, f"{emulated}/run", tmp_path)
