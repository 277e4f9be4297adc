"""Images, folders, lists and videos: how they are found, named and read."""

import os
import pathlib
import struct
import subprocess
import sys

import cv2
import moving
import numpy as np
import pytest

from rmpe_jax.data.images import ImageError
from rmpe_jax.errors import UserError
from rmpe_jax.predict import videos
from rmpe_jax.predict.inputs import (
    count_frames,
    describe_passed_over,
    find_files,
    find_inputs,
    frame_names,
    read_frames,
)


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


def test_all_images_and_videos_of_a_folder(tmp_path):
    for name in ("still.gif", "b.avif", "d.ppm", "sub/e.tiff"):
        write_image(tmp_path / name)
    cv2.imwrite(str(tmp_path / "c.jp2"), moving.frames(1)[0])
    (tmp_path / "f.jfif").write_bytes(write_image(tmp_path / "noext.png").read_bytes())
    (tmp_path / "noext.png").rename(tmp_path / "noext")
    moving.write_video(tmp_path / "sub/clip.avi", 2)
    moving.write_animation(tmp_path / "wave.webp", 3)
    for name in ("notes.md", ".DS_Store", "list.txt", "list.json"):
        (tmp_path / name).write_text("not an image")
    found, passed_over = find_files([str(tmp_path)])
    names_of_images = ["b.avif", "c.jp2", "d.ppm", "f.jfif", "noext", "still.gif"]
    assert names(found) == [*names_of_images, "sub/clip", "sub/e.tiff", "wave"]
    assert [path.name for path in passed_over] == [".DS_Store", "list.json", "list.txt", "notes.md"]
    frames = list(read_frames(found))
    assert len(frames) == count_frames(found) == 7 + 2 + 3
    assert all(frame.image is not None for frame in frames)
    assert [frame.name for frame in frames] == list(frame_names(found))
    assert {"sub/clip_000001.jpg", "wave_000002.jpg"} <= set(frame_names(found))


def test_files_that_are_passed_over_are_counted(folder, caplog):
    (folder / "a\nb").write_text("no image")
    find_inputs([str(folder)], output_folder=folder / "out")
    line = "passed over 2 files that are neither image nor video (a\\nb, notes.md)"
    assert caplog.messages == [line]
    paths = [pathlib.Path(f"{i}.txt") for i in range(1234)]
    line = "passed over 1,234 files that are neither image nor video (0.txt, 1.txt, 2.txt, ...)"
    assert describe_passed_over(paths) == line
    line = "passed over 1 file that is neither image nor video (0.txt)"
    assert describe_passed_over(paths[:1]) == line


def test_results_within_the_folder_are_not_counted(folder):
    for name in ("poses.jsonl", "other.json", "openpose/a_keypoints.json"):
        (folder / "out" / name).parent.mkdir(exist_ok=True)
        (folder / "out" / name).write_text("{}")
    names_there = ("poses.jsonl", "settings.json", "report.html", ".lock", "coco.json")
    for name in (*names_there, "alphapose-results.json", "openpose/a_keypoints.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")

    def passed_over(out):
        return [path.name for path in find_files([str(folder)], out).passed_over]

    assert passed_over(folder) == ["notes.md", "a_keypoints.json", "other.json", "poses.jsonl"]
    own = [*names_there, "alphapose-results.json", "a_keypoints.json", "notes.md"]
    assert sorted(passed_over(folder / "out")) == sorted(own)


def test_folders_that_are_links_are_followed_once(folder, tmp_path):
    write_image(tmp_path / "elsewhere/d.png")
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "sub/loop").symlink_to(folder)
    (folder / "broken.jpg").symlink_to("nothing.jpg")
    found = find_inputs([str(folder)], output_folder=folder / "out")
    assert names(found) == ["a.png", "b.jpg", "broken.jpg", "linked/d.png", "sub/c.PNG"]
    assert [frame.name for frame in read_frames(found) if frame.image is None] == ["broken.jpg"]


def test_a_folder_that_cannot_be_opened_is_an_error(folder, monkeypatch):
    def walk(top, onerror, followlinks):
        onerror(PermissionError(13, "Permission denied", str(folder / "sub")))
        return iter([])

    monkeypatch.setattr("os.walk", walk)
    with pytest.raises(UserError, match=r"images/sub: Permission denied; check the path"):
        find_inputs([str(folder)])


@pytest.mark.parametrize("extension", [".gif", ".webp", ".png", ".avif"])
def test_animations_are_read_as_videos(tmp_path, extension, monkeypatch):
    path = moving.write_animation(tmp_path / f"wave{extension}", 5, milliseconds=40)
    monkeypatch.setattr(videos, "_CHUNK_BYTES", 2 * 3 * 48 * 64)  # two frames
    (found,) = find_inputs([str(path)])
    assert (found.name, found.num_frames, found.frame_rate) == ("wave", 5, 25)
    frames = list(read_frames([found], {"wave_000001.jpg"}))
    assert [frame.index for frame in frames] == [0, 2, 3, 4]
    assert [frame.name for frame in frames] == [f"wave_00000{i}.jpg" for i in (0, 2, 3, 4)]
    assert {frame.image.shape for frame in frames} == {(*moving.SIZE, 3)}
    means = [frame.image.mean() for frame in frames]
    np.testing.assert_allclose(means, moving.STEP * np.array([1, 3, 4, 5]), atol=3)


def test_the_colors_of_animations(tmp_path):
    """Also with an alpha channel, which is dropped."""
    animation = cv2.Animation()
    red, clear = np.zeros((2, 20, 30, 4), np.uint8)
    red[..., 2] = red[..., 3] = clear[..., 0] = 255
    animation.frames, animation.durations = [red, clear], [100, 100]
    cv2.imwriteanimation(str(tmp_path / "a.png"), animation)
    first, second = read_frames(find_inputs([str(tmp_path / "a.png")]))
    assert first.image[5, 5].tolist() == [255, 0, 0]
    assert second.image.shape == (20, 30, 3)


def test_a_damaged_animation(tmp_path, caplog):
    path = moving.write_animation(tmp_path / "wave.gif", 5)
    (found,) = find_inputs([str(path)])
    path.write_bytes(path.read_bytes()[:30])
    (frame,) = read_frames([found])
    assert frame.image is None
    assert "wave.gif: frame 0 cannot be decoded" in frame.error
    assert "wave.gif ends after 1 of 5 frames: it may be damaged" in caplog.text


def test_a_frame_of_an_animation_that_cannot_be_decoded(tmp_path, monkeypatch):
    """The frames after it are read."""
    (found,) = find_inputs([str(moving.write_animation(tmp_path / "wave.gif", 5))])

    def to_rgb(decoded, name):
        if abs(decoded.mean() - 3 * moving.STEP) < 3:
            raise ImageError("image of float32")
        return decoded

    monkeypatch.setattr(videos, "to_rgb", to_rgb)
    frames = list(read_frames([found]))
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.index for frame in frames if frame.image is None] == [2]
    assert frames[2].error == f"{tmp_path / 'wave.gif'}: frame 2 cannot be decoded"


def test_of_pages_the_first_is_read(tmp_path, caplog):
    found = find_inputs([str(moving.write_pages(tmp_path / "a.tif"))])
    (frame,) = read_frames(found)
    assert (frame.image == moving.STEP).all()
    line = "images with several pages, of which only the first is read: 1 (a.tif)"
    assert caplog.messages == [line]


def test_a_bad_video_is_skipped_like_a_bad_image(tmp_path):
    good = moving.write_video(tmp_path / "good.avi", 2)
    (bad := tmp_path / "bad.mp4").write_bytes(b"no video")
    for arguments in ([str(good), str(bad)], [str(tmp_path)]):
        found = find_inputs(arguments)
        assert count_frames(found) == 3
        frames = {frame.name: frame for frame in read_frames(found)}
        assert frames.keys() == {"good_000000.jpg", "good_000001.jpg", "bad.mp4"}
        error = f"video {bad} cannot be read: check that it is there and not damaged"
        assert frames["bad.mp4"][1:] == (None, None, 0, error, None)
    bad.with_name("worse.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"none of the 2 videos can be read: video .*bad\.mp4 cann"):
        find_inputs([str(bad), str(bad.with_name("worse.mp4"))])


def test_a_video_that_is_lost_before_it_is_read(tmp_path):
    found = find_inputs([str(moving.write_video(tmp_path / "clip.avi", 2))])
    (tmp_path / "clip.avi").unlink()
    (frame,) = read_frames(found)
    assert frame.image is None
    assert "clip.avi cannot be read" in frame.error


def test_names_that_are_not_text(tmp_path):
    """OpenCV crashes on such names, unless it gets bytes."""
    for suffix in (b".avi", b".gif", b".png"):
        write = {b".avi": moving.write_video, b".gif": moving.write_animation}.get(suffix)
        source = tmp_path / f"source{suffix.decode()}"
        write(source, 2) if write else write_image(source)
        try:
            os.rename(source, os.fsencode(tmp_path) + b"/\xe9" + suffix)
        except OSError:
            pytest.skip("the file system has no such names")
    frames = list(read_frames(find_inputs([str(tmp_path)])))
    assert len(frames) == 5
    assert all(frame.image is not None for frame in frames)


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
    capture = videos._capture
    monkeypatch.setattr(videos, "_capture", lambda source: capture(str(video)))
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
        "empty": "no images or videos there",
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
