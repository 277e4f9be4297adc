"""What is one video for tracking, and the places of frames in it."""

import cv2
import numpy as np
import pytest
from moving import write_video

from rmpe_jax.predict.inputs import find_inputs
from rmpe_jax.predict.sequences import Sequences
from rmpe_jax.predict.videos import VideoInput


@pytest.fixture
def folder(tmp_path):
    for name in ("f10.png", "f9.png", "f1.png", "sub/a.png", "sub/b.png", "sub/deep/x.png"):
        path = tmp_path / "frames" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.zeros((9, 9, 3), np.uint8))
    write_video(tmp_path / "frames" / "f2.mp4", 3, rate=12)
    return tmp_path / "frames"


def places(sequences, *names):
    found = [sequences.place(name) for name in names]
    return [(place.video.name, place.index) for place in found]


def test_images_of_a_folder_are_a_video_in_the_order_of_their_numbers(folder):
    sequences = Sequences(find_inputs([str(folder)]))
    names = [item.name for item in sequences.inputs]
    frames = ["f1.png", "f9.png", "f10.png"]
    assert names == [*frames, "f2", "sub/a.png", "sub/b.png", "sub/deep/x.png"]
    assert places(sequences, *frames) == [("frames", 0), ("frames", 1), ("frames", 2)]
    assert places(sequences, "sub/b.png", "sub/deep/x.png") == [("sub", 1), ("deep", 0)]
    assert places(sequences, "f2_000002.jpg") == [("f2", 2)]
    assert sequences.place("f10.png").time == 2 / 25
    assert sequences.place("f2_000003.jpg").time == 3 / 12
    assert sequences.place("f3.png") is None
    assert sequences.place("other_000002.jpg") is None
    videos = [sequences.place(name).video for name in ("f1.png", "f9.png", "sub/a.png")]
    assert videos[0] == videos[1] != videos[2]


def test_images_given_one_by_one_or_in_a_list_belong_to_their_folders(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "list.txt").write_text("f9.png\nsub/a.png\nf1.png\n")
    given = ["f9.png", str(folder / "sub" / "a.png"), "f1.png"]
    for arguments in (given, ["list.txt"]):
        sequences = Sequences(find_inputs(arguments))
        assert [item.name for item in sequences.inputs] == ["f1.png", "f9.png", "a.png"]
        assert places(sequences, "f9.png", "a.png") == [("frames", 1), ("sub", 0)]


def test_a_webcam_is_live():
    sequences = Sequences([VideoInput("webcam0", 0, 30.0, None)])
    place = sequences.place("webcam0_000060.jpg")
    assert (place.video.is_live, place.time) == (True, 2.0)
