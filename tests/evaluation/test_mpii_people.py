import numpy as np
import pytest
import scipy.io

from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import mpii_map
from rmpe_jax.evaluation.mpii_people import mpii_ground_truth, mpii_predictions, read_mpii_mat
from rmpe_jax.evaluation.results import coco_results
from rmpe_jax.skeletons import COCO, MPII


def results_of(dataset, rng, noise):
    """One pose for each person, in shuffled order."""
    people = [
        (p.image_id, p.keypoints[i], p.bboxes[i])
        for p in dataset.images
        for i in range(len(p.bboxes))
    ]
    people = [people[i] for i in rng.permutation(len(people))]
    images, keypoints, bboxes = zip(*people, strict=True)
    keypoints = np.array(keypoints) + rng.normal(0, noise, (len(people), 16, 2))
    scores = rng.uniform(0.1, 1, (len(people), 16))
    return coco_results(images, keypoints, scores, scores.mean(-1), np.array(bboxes))


def test_through_datasets_and_results(make_dataset):
    rng = np.random.default_rng(0)
    poses = [rng.uniform(0, 400, (n, 16, 2)) for n in (2, 0, 3)]
    dataset = make_dataset(MPII, poses, head_size=20.0)
    truth = mpii_ground_truth(dataset)
    assert [len(entry["people"]) for entry in truth] == [2, 0, 3]
    assert mpii_map(truth, mpii_predictions(results_of(dataset, rng, 0)))["mAP"] == 100
    assert mpii_map(truth, mpii_predictions(results_of(dataset, rng, 200)))["mAP"] < 50


def test_people_without_head_size_get_the_dataset_ratio(make_dataset, caplog):
    dataset = make_dataset(MPII, [np.zeros((2, 16, 2)), np.zeros((1, 16, 2))], head_size=12.0)
    dataset.images[0].head_sizes[1] = np.nan
    dataset.images[0].bboxes[1] = 0, 0, 10, 300
    sizes = [p["head_size"] for entry in mpii_ground_truth(dataset) for p in entry["people"]]
    np.testing.assert_allclose(sizes, [12, 36, 12], rtol=1e-6)
    assert "1 people have no head size" in caplog.text


def test_datasets_without_joints_or_head_sizes_are_refused(make_dataset):
    with pytest.raises(UserError, match="has coco joints"):
        mpii_ground_truth(make_dataset(COCO, [np.zeros((1, 17, 2))]))
    with pytest.raises(UserError, match="no head sizes"):
        mpii_ground_truth(make_dataset(MPII, [np.zeros((1, 16, 2))]))


def test_real_people_are_found_by_themselves(shared_data):
    dataset = read_mpii(shared_data / "mpii", "valid")
    truth = mpii_ground_truth(dataset)
    poses = [
        {"joints": np.where(np.isfinite(p["joints"]), p["joints"], 0), "scores": np.ones(16)}
        for entry in truth
        for p in entry["people"]
    ]
    remaining = iter(poses)
    predictions = [
        {"image": entry["image"], "people": [next(remaining) for _ in entry["people"]]}
        for entry in truth
    ]
    # These poses have all joints; those without annotation are false positives.
    assert 90 < mpii_map(truth, predictions)["mAP"] < 100
    annotated = (p["annotated"] for entry in truth for p in entry["people"])
    for pose, known in zip(poses, annotated, strict=True):
        pose["joints"][~known] = np.nan
    values = mpii_map(truth, predictions)
    assert values == pytest.approx(dict.fromkeys(values, 100.0))


def records(rows, names):
    """A MATLAB struct array."""
    array = np.zeros((1, len(rows)), [(name, object) for name in names])
    for i, row in enumerate(rows):
        array[0, i] = row
    return array


def release(images):
    annolist = records(
        [(records([(name,)], ["name"]), rects) for name, rects in images], ["image", "annorect"]
    )
    return {"RELEASE": records([(annolist, np.ones(len(images)))], ["annolist", "img_train"])}


def rectangle(points):
    points = records(points, ["x", "y", "id", "is_visible"])
    annopoints = records([(points,)], ["point"])
    return (10.0, 20.0, 40.0, 60.0, annopoints, 1.5)


RECTANGLE = ["x1", "y1", "x2", "y2", "annopoints", "scale"]


@pytest.fixture
def mat(tmp_path):
    two = records(
        [
            rectangle([(1.5, 2.5, 9, 1), (3.0, 4.0, 0, "0")]),
            rectangle([(7, 8, 15, np.zeros((0, 0)))]),
        ],
        RECTANGLE,
    )
    one = records([rectangle([(5.0, 6.0, 3, 1)])], RECTANGLE)
    empty = records([(1.0, 2.0, 3.0, 4.0, np.zeros((0, 0)), 1.0)], RECTANGLE)
    content = release(
        [
            ("two.jpg", two),
            ("one.jpg", one),
            ("empty.jpg", empty),
            ("none.jpg", np.zeros((0, 0))),
            ("test.jpg", records([(2.0,)], ["scale"])),
        ]
    )
    scipy.io.savemat(tmp_path / "mpii.mat", content)
    return tmp_path / "mpii.mat"


def test_reads_mpiis_own_file(mat):
    entries = read_mpii_mat(mat)
    assert [(entry["image"], len(entry["people"])) for entry in entries] == [
        ("two.jpg", 2),
        ("one.jpg", 1),
    ]
    first, second = entries[0]["people"]
    np.testing.assert_array_equal(np.flatnonzero(first["annotated"]), [0, 9])
    np.testing.assert_array_equal(first["joints"][[0, 9]], [[3, 4], [1.5, 2.5]])
    np.testing.assert_array_equal(second["joints"][15], [7, 8])
    assert first["head_size"] == pytest.approx(0.6 * 50)
    predictions = [
        {
            "image": e["image"],
            "people": [{"joints": p["joints"], "scores": np.ones(16)} for p in e["people"]],
        }
        for e in entries
    ]
    assert mpii_map(entries, predictions)["mAP"] == 100
    assert [entry["image"] for entry in read_mpii_mat(mat, {"one.jpg", "none.jpg"})] == ["one.jpg"]


def test_one_image_only(tmp_path):
    scipy.io.savemat(
        tmp_path / "a.mat", release([("a.jpg", records([rectangle([(1, 2, 0, 1)])], RECTANGLE))])
    )
    assert len(read_mpii_mat(tmp_path / "a.mat")) == 1


def test_other_files_are_refused(tmp_path):
    with pytest.raises(UserError, match="no annotation file"):
        read_mpii_mat(tmp_path / "none.mat")
    (tmp_path / "text.mat").write_text("x")
    with pytest.raises(UserError, match="not a MATLAB 5 file"):
        read_mpii_mat(tmp_path / "text.mat")
    scipy.io.savemat(tmp_path / "other.mat", {"joints": np.zeros(3)})
    with pytest.raises(UserError, match="another layout"):
        read_mpii_mat(tmp_path / "other.mat")
    scipy.io.savemat(
        tmp_path / "wrong.mat",
        release([("a.jpg", records([rectangle([(1, 2, 16, 1)])], RECTANGLE))]),
    )
    with pytest.raises(UserError, match="another layout"):
        read_mpii_mat(tmp_path / "wrong.mat")
