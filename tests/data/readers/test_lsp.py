import numpy as np
import pytest
import scipy.io
from tiny_sets import write_lsp

from rmpe_jax.data.images import read_image
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
    names = [record.image_id for record in dataset.images]
    assert names == [f"im{i:0{5 if extended else 4}d}.jpg" for i in (1, 2, 3)]
    for place, record in enumerate(dataset.images):
        flag = joints[place, :, 2] == 1
        expected = np.where(flag, 2, 0) if extended else np.where(flag, 1, 2)
        assert 0 < flag.sum() < 14
        np.testing.assert_array_equal(record.visibility, expected[None])
        np.testing.assert_array_equal(record.keypoints, np.float32(joints[place, None, :, :2]))
        points = joints[place, expected > 0, :2]
        low, high = points.min(0), points.max(0)
        grow = 0.1 * (high - low)
        box = np.concatenate([low - grow, high + grow])
        np.testing.assert_allclose(record.bboxes, [box], rtol=1e-5)
        np.testing.assert_allclose(record.area, np.prod(box[2:] - box[:2]), rtol=1e-5)
        np.testing.assert_array_equal(record.person_ids, [place])
        assert read_image(record.path).shape == (60, 80, 3)


def test_people_with_less_than_two_joints_are_left_out(tmp_path, caplog):
    joints = write_lsp(tmp_path, people=3)
    joints[0, :, 2] = 0
    joints[1, :, 2] = np.eye(14)[3]
    scipy.io.savemat(tmp_path / "joints.mat", {"joints": joints.transpose(1, 2, 0)})
    dataset = read_lsp(tmp_path)
    assert [len(record.bboxes) for record in dataset.images] == [0, 0, 1]
    assert (
        "people skipped because their box has no area: 2 (the first: annotation 0)" in caplog.text
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
    content = (tmp_path / "joints.mat").read_bytes()
    (tmp_path / "joints.mat").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"joints\.mat is not a MATLAB 5 file: fetch it again$"):
        read_lsp(tmp_path)


def test_a_file_without_joints(tmp_path):
    line = error_of(tmp_path, np.zeros((14, 3, 2)), key="points")
    assert line == "FILE has no 'joints': use the dataset's original file"


@pytest.mark.parametrize("shape", [(16, 3, 5), (14, 2, 5), (14, 3)])
def test_joints_of_the_wrong_shape(tmp_path, shape):
    line = f"FILE has joints of shape {shape}, not (3, 14, n) or (14, 3, n): use the dataset's"
    assert error_of(tmp_path, np.zeros(shape)).startswith(line)


def test_joints_that_are_not_finite(tmp_path):
    joints = np.ones((14, 3, 4))
    joints[5, 0, 2] = np.nan
    line = "FILE: person 2 has joints with NaN or infinity: fix the file"
    assert error_of(tmp_path, joints) == line


def test_an_empty_dataset(tmp_path):
    line = "FILE has no people in 0 images: the dataset is empty, use another file"
    assert error_of(tmp_path, np.zeros((14, 3, 0))) == line


def test_real_counts(shared_data):
    dataset = read_lsp(shared_data / "lsp_extended")
    assert len(dataset.images) == dataset.num_people == 9000
    assert sum(trainable(record).sum() for record in dataset.images) == 9000
    joints = scipy.io.loadmat(dataset.annotations)["joints"]
    labeled = sum((record.visibility > 0).sum() for record in dataset.images)
    assert labeled == (joints[:, 2] == 1).sum()
    # Joints lie within the image of the same number.
    for record in dataset.images[::500]:
        height, width = read_image(record.path).shape[:2]
        points = record.keypoints[record.visibility > 0]
        assert (points > -1).all()
        assert (points < [width, height]).all()
