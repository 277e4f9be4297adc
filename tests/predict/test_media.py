"""What files hold: by content first, by extension if the content is unknown."""

import os
import pathlib
import struct
import zlib

import pytest
from moving import write_animation, write_pages, write_video
from tiny_sets import encode, raster

from rmpe_jax.predict.media import Kind, kind_of

STILL = (".jpg", ".png", ".bmp", ".webp", ".gif", ".avif", ".jp2", ".ppm")


@pytest.mark.parametrize("extension", STILL)
@pytest.mark.parametrize("name", ["a", "a{}", "a.jpg", "a.mp4", "photo.jpg_large"])
def test_images_by_their_content(tmp_path, extension, name):
    path = tmp_path / name.format(extension)
    path.write_bytes(encode(raster(0), extension))
    assert kind_of(path) == Kind.IMAGE


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a", Kind.IMAGE), ("a.TIF", Kind.IMAGE), ("a.nef", Kind.OTHER), ("a.DNG", Kind.OTHER)],
)
def test_raw_photos_are_not_taken_for_their_small_previews(tmp_path, name, kind):
    """They begin like TIFF files."""
    (tmp_path / name).write_bytes(encode(raster(0), ".tiff"))
    assert kind_of(tmp_path / name) == kind


@pytest.mark.parametrize("name", ["a", "a.avi", "a.jpg", "a.mp4", "a.dat"])
def test_videos_by_their_content(tmp_path, name):
    for extension in (".avi", ".mp4", ".mkv"):
        source = write_video(tmp_path / f"source{extension}")
        (tmp_path / name).write_bytes(source.read_bytes())
        assert kind_of(tmp_path / name) == Kind.VIDEO


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"\0\0\0\x18ftypmp42", Kind.VIDEO),
        (b"\0\0\0\x18ftypqt  ", Kind.VIDEO),
        (b"\0\0\0\x18ftypheic", Kind.IMAGE),
        (b"\0\0\0\x18ftypM4A ", Kind.OTHER),  # sound
        (b"\0\0\0\x18ftypcrx ", Kind.OTHER),  # a raw photo of Canon
        (b"G" + bytes(187) + b"G" + bytes(187) + b"G", Kind.VIDEO),
        (b"G" + bytes(187) + b"GG", Kind.OTHER),
        (b"RIFF\0\0\0\0WAVE", Kind.OTHER),
        (b"P3 was the best", Kind.OTHER),
        (b"P3\n# by hand\n2 2\n", Kind.IMAGE),
        (b"BMW\n", Kind.OTHER),
        (b"II*\0\x10\0\0\0CR\2\0", Kind.OTHER),  # a raw photo
        (b"<html>", Kind.OTHER),
        (b"", Kind.OTHER),
    ],
)
def test_first_bytes(tmp_path, head, kind):
    path = tmp_path / "a.dat"
    path.write_bytes(head)
    assert kind_of(path) == kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JPG", Kind.IMAGE),
        ("a.jfif", Kind.IMAGE),
        ("a.mp4", Kind.VIDEO),
        ("a.txt", Kind.OTHER),
        (".DS_Store", Kind.OTHER),
        ("a", Kind.OTHER),
    ],
)
def test_unknown_content(tmp_path, name, kind):
    (tmp_path / name).write_bytes(b"junk")
    assert kind_of(tmp_path / name) == kind
    (tmp_path / name).unlink()
    assert kind_of(tmp_path / name) == kind  # missing


def test_notes_of_macos_are_no_images(tmp_path):
    (tmp_path / "._a.jpg").write_bytes(b"\0\5\x16\7" + bytes(100))
    assert kind_of(tmp_path / "._a.jpg") == Kind.OTHER


@pytest.mark.parametrize("extension", [".gif", ".webp", ".png", ".avif"])
def test_animations(tmp_path, extension):
    path = write_animation(tmp_path / f"a{extension}", 3)
    assert kind_of(path) == Kind.ANIMATION
    assert kind_of(path.rename(tmp_path / "b")) == Kind.ANIMATION


def test_an_animation_with_long_metadata(tmp_path):
    """They may be longer than the first bytes of the file that are looked at."""
    encoded = write_animation(tmp_path / "a.png", 3).read_bytes()
    text = b"tEXtComment\0" + bytes(10_000).replace(b"\0", b"x")
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    (tmp_path / "b.png").write_bytes(encoded[:33] + chunk + encoded[33:])
    assert kind_of(tmp_path / "b.png") == Kind.ANIMATION


@pytest.mark.parametrize("extension", [".jpg", ".png", ".bmp", ".webp", ".jp2", ".ppm"])
def test_images_that_cannot_be_animations_are_not_counted(tmp_path, extension, monkeypatch):
    """Counting takes most of the time to find the images of a large folder."""
    (tmp_path / "a").write_bytes(encode(raster(0), extension))
    monkeypatch.delattr("cv2.imcount")
    assert kind_of(tmp_path / "a") == Kind.IMAGE


def test_pages(tmp_path):
    assert kind_of(write_pages(tmp_path / "a.tif")) == Kind.PAGES


def test_a_pipe_is_not_opened(tmp_path):
    os.mkfifo(tmp_path / "a.jpg")
    assert kind_of(tmp_path / "a.jpg") == Kind.OTHER


def test_names_that_are_not_text(tmp_path):
    """OpenCV crashes on such names, unless it gets bytes."""
    path = write_animation(tmp_path / "a.gif", 2)
    other = pathlib.Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.gif"))
    try:
        path.rename(other)
    except OSError:
        pytest.skip("the file system has no such names")
    assert kind_of(other) == Kind.ANIMATION
