import numpy as np

from rmpe_jax.evaluation.arrays import detection_arrays, ground_truth_arrays


def test_ground_truth(random_set):
    content, _ = random_set(0)
    people = ground_truth_arrays(content, 17, [7, 3, 5])
    for row, image_id in enumerate((7, 3, 5)):
        expected = [a for a in content["annotations"] if a["image_id"] == image_id]
        n = len(expected)
        assert people.valid[row].sum() == n
        assert people.valid[row, :n].all()
        for i, annotation in enumerate(expected):
            joints = np.reshape(annotation["keypoints"], (17, 3))
            np.testing.assert_array_equal(people.keypoints[row, i], np.float32(joints[:, :2]))
            np.testing.assert_array_equal(people.visibility[row, i], joints[:, 2])
            x, y, w, h = annotation["bbox"]
            np.testing.assert_allclose(people.bboxes[row, i], [x, y, x + w, y + h])
            assert people.area[row, i] == annotation["area"]
            assert people.iscrowd[row, i] == annotation["iscrowd"]
            nothing = annotation["num_keypoints"] == 0
            assert people.ignore[row, i] == (nothing or annotation["iscrowd"])


def test_a_dataset_gives_the_same_arrays(coco_val):
    chosen = coco_val.image_ids[5:9]
    of_file = ground_truth_arrays(coco_val.annotations, 17, chosen)
    for array, other in zip(of_file, ground_truth_arrays(coco_val, 17, chosen), strict=True):
        np.testing.assert_array_equal(array, other)
    assert of_file.valid.sum() > 4


def test_detections_and_their_areas():
    keypoints = np.arange(51.0).tolist()  # x from 0 to 48, y from 1 to 49
    results = [
        {"image_id": 2, "keypoints": keypoints, "score": 0.5, "bbox": [1, 2, 10, 20]},
        {"image_id": 9, "keypoints": keypoints, "score": 0.7},
        {"image_id": 2, "keypoints": keypoints, "score": 0.9},
    ]
    found = detection_arrays(results, 17, [1, 2])
    assert found.valid.sum(-1).tolist() == [0, 2]
    assert found.scores[1, :2].tolist() == [0.5, 0.9]
    assert found.area[1, :2].tolist() == [200, 48 * 48]
    np.testing.assert_array_equal(found.keypoints[1, 0, 1], [3, 4])


def test_nobody(random_set):
    content, _ = random_set(0)
    assert not detection_arrays([], 17, [1, 2]).valid.any()
    assert detection_arrays([], 17, [1, 2]).keypoints.shape == (2, 8, 17, 2)
    alone = {**content, "annotations": content["annotations"][:1]}
    assert alone["annotations"][0]["image_id"] != 12
    assert not ground_truth_arrays(alone, 17, [12]).valid.any()
