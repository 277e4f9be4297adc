import numpy as np
import pytest
import scipy.io
from tiny_sets import write_lsp

from rmpe_jax.data.pictures import read_picture
from rmpe_jax.data.readers.lsp import read_lsp
from rmpe_jax.data.readers.records import trainable
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import LSP


def error_of(folder, joints, key="joints") -> str:
    scipy.io.savemat(folder / "joints.mat", {key: joints})
    with pytest.raises(UserError) as error:
        read_lsp(folder)
    return str(error.value).replace(str(folder / "joints.mat"), "FILE")


@pytest.mark.parametrize("extended", [False, True])
def test_both_layouts_are_read(tmp_path, extended):
    joints = write_lsp(tmp_path, people=3, extended=extended)
    dataset = read_lsp(tmp_path)
    assert dataset.name == f"lsp/{tmp_path.name}"
    assert dataset.skeleton is LSP
    names = [picture.image_id for picture in dataset.pictures]
    assert names == [f"im{i:0{5 if extended else 4}d}.jpg" for i in (1, 2, 3)]
    for place, picture in enumerate(dataset.pictures):
        flag = joints[place, :, 2] == 1
        expected = np.where(flag, 2, 0) if extended else np.where(flag, 1, 2)
        assert 0 < flag.sum() < 14
        np.testing.assert_array_equal(picture.visibility, expected[None])
        np.testing.assert_array_equal(picture.keypoints, np.float32(joints[place, None, :, :2]))
        points = joints[place, expected > 0, :2]
        low, high = points.min(0), points.max(0)
        grow = 0.1 * (high - low)
        box = np.concatenate([low - grow, high + grow])
        np.testing.assert_allclose(picture.bboxes, [box], rtol=1e-5)
        np.testing.assert_allclose(picture.area, np.prod(box[2:] - box[:2]), rtol=1e-5)
        np.testing.assert_array_equal(picture.person_ids, [place])
        assert read_picture(picture.path).shape == (60, 80, 3)


def test_people_with_less_than_two_joints_are_left_out(tmp_path, caplog):
    joints = write_lsp(tmp_path, people=3)
    joints[0, :, 2] = 0
    joints[1, :, 2] = np.eye(14)[3]
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints.transpose(1, 2, 0)})
    dataset = read_lsp(tmp_path)
    assert [len(picture.bboxes) for picture in dataset.pictures] == [0, 0, 1]
    assert (
        "people left out because their box has no area: 2 (the first: annotation 0)" in caplog.text
    )


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"^no annotation file .*joints\.mat: check the folder$"):
        read_lsp(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{}", b"no MATLAB file at all " * 20])
def test_a_file_of_another_form(tmp_path, content):
    (tmp_path / "joints.mat").write_bytes(content)
    with pytest.raises(UserError, match=r"joints\.mat is not a MATLAB 5 file: fetch it again$"):
        read_lsp(tmp_path)


def test_a_truncated_file(tmp_path):
    write_lsp(tmp_path, people=200)
    whole = (tmp_path / "joints.mat").read_bytes()
    (tmp_path / "joints.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"joints\.mat is not a MATLAB 5 file: fetch it again$"):
        read_lsp(tmp_path)


def test_a_file_without_joints(tmp_path):
    line = error_of(tmp_path, np.zeros((14, 3, 2)), key="points")
    assert line == "FILE has no 'joints': use the file of the data set"


@pytest.mark.parametrize("shape", [(16, 3, 5), (14, 2, 5), (14, 3)])
def test_joints_of_the_wrong_shape(tmp_path, shape):
    line = f"FILE has joints of shape {shape}, not (3, 14, n) or (14, 3, n): use the file of the"
    assert error_of(tmp_path, np.zeros(shape)).startswith(line)


def test_joints_that_are_not_finite(tmp_path):
    joints = np.ones((14, 3, 4))
    joints[5, 0, 2] = np.nan
    line = "FILE: person 2 has joints with NaN or infinity: mend the file"
    assert error_of(tmp_path, joints) == line


def test_an_empty_data_set(tmp_path):
    line = "FILE has no people in 0 pictures: the data set is empty, use another file"
    assert error_of(tmp_path, np.zeros((14, 3, 0))) == line


def test_real_counts(shared_data):
    dataset = read_lsp(shared_data / "lsp_extended")
    assert len(dataset.pictures) == dataset.num_people == 9000
    assert sum(trainable(picture).sum() for picture in dataset.pictures) == 9000
    joints = scipy.io.loadmat(dataset.annotations)["joints"]
    labelled = sum((picture.visibility > 0).sum() for picture in dataset.pictures)
    assert labelled == (joints[:, 2] == 1).sum()
    # Joints lie within the pictures that carry their number.
    for picture in dataset.pictures[::500]:
        height, width = read_picture(picture.path).shape[:2]
        points = picture.keypoints[picture.visibility > 0]
        assert (points > -1).all()
        assert (points < [width, height]).all()
