"""What image decoders write to stderr themselves: dropped and counted; all else gets through."""

import os
import struct
import subprocess
import sys
import time
import zlib

import pytest
import tiny_sets
from tiny_sets import encode, raster

from rmpe_jax import cli
from rmpe_jax.data.images import decode_image
from rmpe_jax.predict import decoder_messages
from rmpe_jax.predict.decoder_messages import without_decoder_messages


def png_with_a_bad_profile() -> bytes:
    data = b"iCCPname\0\0" + zlib.compress(b"abc")
    chunk = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    encoded = encode(raster(0), ".png")
    return encoded[:33] + chunk + encoded[33:]


def damaged_jpeg() -> bytes:
    encoded = encode(raster(0), ".jpg")
    return encoded[:-2] + bytes(50) + encoded[-2:]


def test_decoders_write_these_messages(capfd):
    """If this fails, OpenCV has become silent, and this module is not needed anymore."""
    decode_image(png_with_a_bad_profile(), "a.png")
    decode_image(damaged_jpeg(), "a.jpg")
    lines = capfd.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["libpng warning", "Corrupt JPEG data"]


SCRIPT = """
import logging, os, sys, threading
from rmpe_jax.data.images import read_image
from rmpe_jax.predict.decoder_messages import without_decoder_messages

def decode():
    for i in range(20):
        read_image(sys.argv[1])
        read_image(sys.argv[2])
        logging.warning("ours, from a thread")

logging.basicConfig(format="%(message)s")
with without_decoder_messages():
    threads = [threading.Thread(target=decode) for _ in range(3)]
    for thread in threads:
        thread.start()
    print("ours", file=sys.stderr)
    for thread in threads:
        thread.join()
    os.write(2, b"of another library\\n")
logging.warning("after")
"""


def test_messages_are_dropped_and_counted(tmp_path):
    (tmp_path / "a.png").write_bytes(png_with_a_bad_profile())
    (tmp_path / "a.jpg").write_bytes(damaged_jpeg())
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "a.png"), str(tmp_path / "a.jpg")]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    *lines, other, count, last = output.splitlines()
    assert (other, last) == ("of another library", "after")
    assert sorted(lines) == ["ours", *60 * ["ours, from a thread"]]
    assert count.startswith("image decoders reported damage or odd metadata ")
    assert " x Corrupt JPEG data: " in count
    assert " x libpng warning: iCCP: " in count


def test_messages_are_counted_by_their_text(capfd):
    with without_decoder_messages():
        for text in ("warning: b", "warning: a", "error: c", "warning: b", "warning: d"):
            os.write(2, f"libpng {text}".encode())
            os.write(2, b"\n")
    assert capfd.readouterr().err == (
        "image decoders reported damage or odd metadata 5 times: 2 x libpng warning: b, "
        "1 x libpng warning: a, 1 x libpng error: c, ...\n"
    )


def test_without_messages_nothing_is_counted(capfd):
    with without_decoder_messages():
        decode_image(encode(raster(0), ".png"), "a.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("executable", ["", "/missing/python"])
def test_without_a_process_messages_are_shown(capfd, monkeypatch, executable):
    monkeypatch.setattr(sys, "executable", executable)
    with without_decoder_messages():
        os.write(2, b"libpng warning: shown\n")
    assert capfd.readouterr().err == "libpng warning: shown\n"


def test_a_frozen_application_is_not_started_again(capfd, monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(subprocess, "Popen", None)
    with without_decoder_messages():
        os.write(2, b"libpng warning: shown\n")
    assert capfd.readouterr().err == "libpng warning: shown\n"


def test_a_process_that_lives_on_does_not_delay_the_end(capfd, monkeypatch):
    """Its messages are filtered as long as it lives."""
    monkeypatch.setattr(decoder_messages, "_WAIT_SECONDS", 0.1)
    script = "import os\ninput()\nos.write(2, b'libpng warning: a\\nother\\n')"
    with without_decoder_messages():
        command = [sys.executable, "-I", "-S", "-c", script]
        other = subprocess.Popen(command, stdin=subprocess.PIPE)
    other.communicate(b"\n")
    lines, deadline = "", time.monotonic() + 10
    while "1 times: 1 x libpng warning: a" not in lines and time.monotonic() < deadline:
        lines += capfd.readouterr().err
        time.sleep(0.01)
    assert lines.startswith("other\nimage decoders reported damage or odd metadata 1 times")


def test_prepare_counts_them_too(tmp_path, capfd):
    folder = tiny_sets.write_coco(tmp_path / "coco")
    for path in (folder / "mini").iterdir():
        path.write_bytes(png_with_a_bad_profile())
    assert cli.main(["prepare", f"coco:{folder}:mini", "--out", str(tmp_path / "out")]) == 0
    lines = [line for line in capfd.readouterr().err.splitlines() if "libpng" in line]
    assert len(lines) == 1
    assert lines[0].startswith("image decoders reported damage or odd metadata ")


def test_stderr_is_restored_after_an_error(capfd):
    stderr = sys.stderr
    with pytest.raises(KeyboardInterrupt), without_decoder_messages():
        raise KeyboardInterrupt
    assert sys.stderr is stderr
    os.write(2, b"libpng warning: shown\n")
    assert capfd.readouterr().err == "libpng warning: shown\n"


def test_the_last_words_of_a_crash_get_through():
    script = (
        "import os\n"
        "from rmpe_jax.predict.decoder_messages import without_decoder_messages\n"
        "with without_decoder_messages():\n"
        "    os.write(2, b'check failed\\n')\n"
        "    os.abort()\n"
    )
    command = [sys.executable, "-c", script]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode < 0
    assert process.stderr == "check failed\n"
