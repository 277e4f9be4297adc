"""Videos: size, rate and frames are kept; interruptions keep the frames so far."""

import os

import cv2
import numpy as np
import pytest

from rmpe_jax.errors import UserError
from rmpe_jax.visualize import VideoFile
from rmpe_jax.visualize.video import num_frames


def frames(count, size=(48, 64)):
    """Frames of one bright color each, which stay distinguishable after compression."""
    return [np.full((*size, 3), (250 - 40 * i, 40 * i, 20), np.uint8) for i in range(count)]


def read_all(path):
    capture = cv2.VideoCapture(str(path))
    found = []
    while True:
        ok, image = capture.read()
        if not ok:
            return capture.get(cv2.CAP_PROP_FPS), found
        found.append(image[..., ::-1])


@pytest.mark.parametrize("size", [(48, 64), (270, 480)])
@pytest.mark.parametrize("rate", [25.0, 30000 / 1001])
def test_size_rate_and_frames_are_kept(tmp_path, size, rate):
    path = tmp_path / "new" / "poses.mp4"
    with VideoFile(path, rate, size) as video:
        for image in frames(5, size):
            video.add(image)
    found_rate, found = read_all(path)
    assert found_rate == pytest.approx(rate, rel=1e-4)
    assert [image.shape for image in found] == [(*size, 3)] * 5
    for ours, theirs in zip(frames(5, size), found, strict=True):
        np.testing.assert_allclose(theirs[20, 20], ours[20, 20], atol=12)
    assert os.listdir(path.parent) == ["poses.mp4"]


def test_odd_sides_lose_a_pixel(tmp_path):
    with VideoFile(tmp_path / "poses.mp4", 25.0, (49, 65)) as video:
        video.add(frames(1, (49, 65))[0])
    assert [image.shape for image in read_all(tmp_path / "poses.mp4")[1]] == [(48, 64, 3)]


def test_an_interruption_keeps_the_frames_so_far(tmp_path):
    path = tmp_path / "poses.mp4"

    def interrupted():
        with VideoFile(path, 25.0, (48, 64)) as video:
            for image in frames(3):
                video.add(image)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert num_frames(path) == 3
    assert os.listdir(tmp_path) == ["poses.mp4"]


def test_the_old_video_stays_until_the_new_one_is_done(tmp_path):
    path = tmp_path / "poses.mp4"
    path.write_bytes(b"old")
    with VideoFile(path, 25.0, (48, 64)) as video:
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"old", "a video without frames is not written"
    with VideoFile(path, 25.0, (48, 64)) as video:
        video.add(frames(1)[0])
    assert num_frames(path) == 1
    assert os.listdir(tmp_path) == ["poses.mp4"]


def test_a_frame_of_another_size_is_refused(tmp_path):
    with (
        VideoFile(tmp_path / "poses.mp4", 25.0, (48, 64)) as video,
        pytest.raises(UserError, match=r"a frame has size \(64, 48\) instead of \(48, 64\)"),
    ):
        video.add(frames(1, (64, 48))[0])


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_invalid_frame_rates(tmp_path, rate):
    with pytest.raises(UserError, match="frames per second is invalid"):
        VideoFile(tmp_path / "poses.mp4", rate, (48, 64))
    assert os.listdir(tmp_path) == []


def test_invalid_paths(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        VideoFile(tmp_path / "file/poses.mp4", 25.0, (48, 64))
    with pytest.raises(UserError, match=r"only \.mp4"):
        VideoFile(tmp_path / "poses.avi", 25.0, (48, 64))


def test_a_full_disk_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "poses.mp4"
    video = VideoFile(path, 25.0, (48, 64))
    for image in frames(3):
        video.add(image)
    monkeypatch.setattr("rmpe_jax.visualize.video.num_frames", lambda _: 2)
    with pytest.raises(UserError, match="incomplete: free space"):
        video.close()
    assert os.listdir(tmp_path) == []
