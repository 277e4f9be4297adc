"""Images, folders, lists and videos: how they are found, named and read."""

import pathlib
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.predict import inputs
from rmpe_jax.predict.inputs import count_frames, find_inputs, read_frames


def write_image(path: pathlib.Path, value: int = 100) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), value, np.uint8))
    return path


def write_video(path: pathlib.Path, count: int = 5) -> pathlib.Path:
    """Frames of 64 x 48 that get brighter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (64, 48))
    for i in range(count):
        writer.write(np.full((48, 64, 3), 40 * (i % 6 + 1), np.uint8))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    for name in ("b.jpg", "sub/c.PNG", "a.png", "out/drawn/a.png"):
        write_image(tmp_path / "images" / name)
    (tmp_path / "images" / "notes.md").write_text("not an image")
    return tmp_path / "images"


def names(found) -> list[str]:
    return [item.name for item in found]


def test_folders_with_subfolders_without_drawings(folder):
    found = find_inputs([str(folder)], output_folder=folder / "out")
    assert names(found) == ["a.png", "b.jpg", "sub/c.PNG"]
    assert [frame.name for frame in read_frames(found)] == names(found)
    assert count_frames(found) == 3


def test_files_in_the_given_order_without_duplicates(folder):
    b, a = str(folder / "b.jpg"), str(folder / "a.png")
    assert names(find_inputs([b, a])) == ["b.jpg", "a.png"]
    assert names(find_inputs([b, a, b])) == ["b.jpg", "a.png"]


def test_ambiguous_names_include_folders(folder, tmp_path, monkeypatch):
    other = write_image(tmp_path / "more" / "b.jpg", 7)
    expected = ["images/b.jpg", "more/b.jpg"]
    assert names(find_inputs([str(folder / "b.jpg"), str(other)])) == expected
    monkeypatch.chdir(folder)
    found = find_inputs(["b.jpg", "../more/b.jpg"])
    assert names(found) == expected
    assert [frame.image[0, 0, 0] for frame in read_frames(found)] == [100, 7]


def test_paths_are_relative_to_their_list(folder):
    (folder / "list.txt").write_text("sub/c.PNG\n\n  a.png\nmissing.jpg\n")
    found = find_inputs([str(folder / "list.txt")])
    assert names(found) == ["c.PNG", "a.png", "missing.jpg"]
    frames = list(read_frames(found))
    assert [frame.image is None for frame in frames] == [False, False, True]
    assert "missing.jpg is missing" in frames[2].error


def test_a_damaged_file_gives_a_frame_without_image(folder):
    (folder / "b.jpg").write_bytes(b"junk")
    a, b, c = read_frames(find_inputs([str(folder)], output_folder=folder / "out"))
    assert a.image is not None
    assert c.image is not None
    assert b.image is None
    assert "is not an image or is damaged" in b.error


def test_a_video(tmp_path):
    (found,) = find_inputs([str(write_video(tmp_path / "clip.avi"))])
    assert (found.name, found.num_frames, found.frame_rate) == ("clip", 5, 12)
    frames = list(read_frames([found]))
    assert [frame.name for frame in frames] == [f"clip_{i:06}.jpg" for i in range(5)]
    assert [frame.index for frame in frames] == list(range(5))
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    means = np.array([frame.image.mean() for frame in frames])
    np.testing.assert_allclose(means, 40 * np.arange(1, 6), atol=3)


def test_done_frames_are_skipped(folder, tmp_path):
    video = write_video(tmp_path / "clip.avi")
    found = find_inputs([str(folder / "a.png"), str(video), str(folder / "b.jpg")])
    done = {"a.png", "clip_000000.jpg", "clip_000002.jpg", "clip_000003.jpg"}
    frames = list(read_frames(found, done))
    assert [frame.name for frame in frames] == ["clip_000001.jpg", "clip_000004.jpg", "b.jpg"]
    assert abs(frames[0].image.mean() - 80) < 3


def test_videos_with_the_same_name(tmp_path):
    a, b = write_video(tmp_path / "a" / "clip.avi", 1), write_video(tmp_path / "b" / "clip.avi", 1)
    frames = list(read_frames(find_inputs([str(a), str(b)])))
    assert [f.name for f in frames] == ["a/clip.avi_000000.jpg", "b/clip.avi_000000.jpg"]


def test_an_image_named_like_a_frame_of_a_video(tmp_path):
    video = write_video(tmp_path / "clip.avi", 2)
    image = write_image(tmp_path / "clip_000000.jpg")
    frames = list(read_frames(find_inputs([str(video), str(image)])))
    expected = ["clip.avi_000000.jpg", "clip.avi_000001.jpg", "clip_000000.jpg"]
    assert [frame.name for frame in frames] == expected


def test_a_resumed_webcam_has_new_frames(tmp_path, monkeypatch):
    video = write_video(tmp_path / "clip.avi", 3)
    capture = inputs._capture
    monkeypatch.setattr(inputs, "_capture", lambda source: capture(str(video)))
    found = find_inputs(["0", "0"])
    assert names(found) == ["webcam0"]
    frames = list(read_frames(found, {"webcam0_000000.jpg", "webcam0_000001.jpg", "a.jpg"}))
    assert [frame.name for frame in frames] == [f"webcam0_{i:06}.jpg" for i in (2, 3, 4)]
    assert abs(frames[0].image.mean() - 40) < 3


@pytest.mark.parametrize("out", [".", "sub/.."])
def test_results_next_to_the_images(folder, out):
    write_image(folder / "drawn" / "a.png")
    found = find_inputs([str(folder)], output_folder=folder / out)
    assert names(found) == ["a.png", "b.jpg", "out/drawn/a.png", "sub/c.PNG"]


def test_a_list_with_a_byte_order_mark(folder, tmp_path):
    (tmp_path / "list.txt").write_text("images/b.jpg\n", encoding="utf-8-sig")
    (frame,) = read_frames(find_inputs([str(tmp_path / "list.txt")]))
    assert frame.image is not None


def test_invalid_inputs(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    (tmp_path / "prose.txt").write_text(300 * "word ")
    (tmp_path / "folders.txt").write_text("empty\n")
    (tmp_path / "bytes.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    for name, expected in {
        "nothing.jpg": "no such file or folder",
        "empty": "no images there",
        "list.txt": "the list is empty",
        "folders.txt": "is a folder; give folders as inputs",
        "bytes.txt": "not a list of paths",
        "clip.mp4": "clip.mp4 cannot be read",
        "prose.txt": "too long; check the path",
        300 * "a": "too long; check the path",
    }.items():
        with pytest.raises(UserError, match=expected) as error:
            find_inputs([str(tmp_path / name)])
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="webcam 99 cannot be read"):
        find_inputs(["99"])


def test_a_truncated_video_gives_its_frames_and_a_warning(tmp_path, caplog):
    complete = write_video(tmp_path / "complete.avi", 20)
    assert len(list(read_frames(find_inputs([str(complete)])))) == 20
    assert caplog.text == ""
    data = complete.read_bytes()
    (tmp_path / "cut.avi").write_bytes(data[: data.rindex(b"idx1") * 3 // 4])
    count = len(list(read_frames(find_inputs([str(tmp_path / "cut.avi")]))))
    assert 0 < count < 18
    assert f"cut.avi ends after {count} of 20 frames: it may be damaged" in caplog.text


def test_a_damaged_video_gives_one_line(tmp_path):
    """And no messages that OpenCV and FFmpeg write to stderr themselves."""
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(200))
    script = (
        "import sys; from rmpe_jax.errors import UserError\n"
        "from rmpe_jax.predict.inputs import find_inputs\n"
        "try: find_inputs(sys.argv[1:])\nexcept UserError as error: print(error, file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "clip.mp4")]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stderr.splitlines()
    assert len(lines) == 1
    assert "clip.mp4 cannot be read" in lines[0]


def test_the_exif_orientation_is_applied(tmp_path):
    path = write_image(tmp_path / "photo.jpg")  # 20 high, 30 wide
    stored = path.read_bytes()
    tiff = struct.pack(">2sHIHHHIHHI", b"MM", 42, 8, 1, 0x0112, 3, 1, 6, 0, 0)
    segment = b"Exif\0\0" + tiff
    header = b"\xff\xe1" + struct.pack(">H", len(segment) + 2)
    path.write_bytes(stored[:2] + header + segment + stored[2:])
    (frame,) = read_frames(find_inputs([str(path)]), frozenset())
    assert frame.image.shape == (30, 20, 3)
    (frame,) = read_frames(find_inputs([str(path)], upright=False))
    assert frame.image.shape == (20, 30, 3)
