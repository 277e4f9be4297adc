"""MPII's multi-person mAP by hand, and against the protocol written as loops."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmpe_jax.errors import UserError
from rmpe_jax.evaluation import mpii_map
from rmpe_jax.evaluation.bootstrap import image_resamples, resampled_map
from rmpe_jax.evaluation.mpii import assign_people, ranked_joints
from rmpe_jax.skeletons import MPII

NAMES = ["right_ankle", "right_knee", "right_hip", "left_hip", "left_knee", "left_ankle"]
NAMES += ["pelvis", "thorax", "upper_neck", "head_top"]
NAMES += ["right_wrist", "right_elbow", "right_shoulder"]
NAMES += ["left_shoulder", "left_elbow", "left_wrist"]
COUNTED = [j for j in range(16) if j not in (6, 7)]


def loops(ground_truth, predictions, threshold, count_unpredicted):
    """The protocol, joint by joint; predictions by image in the order of the ground truth.

    Like the toolkit it notes which joints are annotated while it goes through the poses.
    """
    poses_of = {entry["image"]: entry["people"] for entry in predictions}
    rows = {j: [] for j in COUNTED}  # (score, correct)
    totals = dict.fromkeys(COUNTED, 0)
    known = set()
    for entry in ground_truth:
        people, poses = entry["people"], poses_of.get(entry["image"], [])
        taken_by = assigned(people, poses, threshold)
        for j in COUNTED:
            has_joint = set()
            for p, pose in enumerate(poses):
                has_joint |= {i for i, person in enumerate(people) if person["annotated"][j]}
                if not any(math.isnan(c) for c in pose["joints"][j]):
                    hit = p in taken_by and matches(people[taken_by[p]], pose, j, threshold)
                    rows[j].append((pose["scores"][j], hit))
            annotated = sum(bool(person["annotated"][j]) for person in people)
            totals[j] += annotated if count_unpredicted else len(has_joint)
            known |= {j} if annotated else set()
    ap = {NAMES[j]: voc(rows[j], totals[j]) if j in known else math.nan for j in COUNTED}
    table = {"Head": ("upper_neck", "head_top")}
    for part in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle"):
        table[part.capitalize()] = (f"left_{part}", f"right_{part}")
    columns = {name: known_mean([ap[j] for j in pair]) for name, pair in table.items()}
    return {**columns, "mAP": known_mean(list(ap.values()))}


def matches(person, pose, j, threshold):
    if not person["annotated"][j]:
        return False
    return math.dist(pose["joints"][j], person["joints"][j]) / person["head_size"] <= threshold


def assigned(people, poses, threshold):
    """Pose -> person."""
    best = []  # for each pose (person, PCKh)
    for pose in poses:
        values = []
        for person in people:
            annotated = [j for j in COUNTED if person["annotated"][j]]
            correct = sum(matches(person, pose, j, threshold) for j in annotated)
            values.append(correct / len(annotated) if annotated else 0.0)
        top = max(range(len(values)), key=lambda i: values[i], default=None)
        best.append((top, values[top] if values else 0.0))
    taken = {}
    for i in range(len(people)):
        candidates = [(value, -p) for p, (person, value) in enumerate(best) if person == i]
        value, minus_p = max(candidates, default=(0.0, 0))
        if value > 0:
            taken[-minus_p] = i
    return taken


def voc(rows, total):
    """Area under the envelope, by VOC's own sentinels."""
    if not total:
        return 0.0
    rows = sorted(rows, key=lambda row: -row[0])  # stable
    recall, precision, hits = [0.0], [0.0], 0
    for n, (_, hit) in enumerate(rows, 1):
        hits += hit
        recall.append(hits / total)
        precision.append(hits / n)
    recall.append(1.0)
    precision.append(0.0)
    for n in range(len(precision) - 2, -1, -1):
        precision[n] = max(precision[n], precision[n + 1])
    steps = range(1, len(recall))
    return 100 * sum((recall[n] - recall[n - 1]) * precision[n] for n in steps)


def known_mean(values):
    values = [v for v in values if not math.isnan(v)]
    return sum(values) / len(values) if values else math.nan


def random_image(rng, n, p):
    """People near each other, and poses that fit some of them to some degree."""
    people, poses = [], []
    for _ in range(n):
        joints = rng.uniform(0, 60, (16, 2))
        annotated = rng.random(16) < rng.choice([0.0, 0.5, 1.0], p=[0.1, 0.3, 0.6])
        size = rng.uniform(5, 20)
        people.append({"joints": joints, "annotated": annotated, "head_size": size})
    for _ in range(p):
        of = people[rng.integers(n)]["joints"] if n else rng.uniform(0, 60, (16, 2))
        joints = of + rng.normal(0, rng.choice([0.0, 3.0, 30.0]), (16, 2))
        joints[rng.random(16) < 0.1] = np.nan
        poses.append({"joints": joints, "scores": rng.integers(0, 5, 16) / 4})  # many ties
    return people, poses


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    num_images=st.integers(0, 5),
    threshold=st.sampled_from([0.2, 0.5]),
    strict=st.booleans(),
)
def test_equals_the_protocol_in_loops(seed, num_images, threshold, strict):
    rng = np.random.default_rng(seed)
    ground_truth, predictions = [], []
    for i in range(num_images):
        people, poses = random_image(rng, rng.integers(0, 5), rng.integers(0, 6))
        ground_truth.append({"image": f"{i}.jpg", "people": people})
        if poses or rng.random() < 0.5:
            predictions.append({"image": f"{i}.jpg", "people": poses})
    got = mpii_map(ground_truth, predictions, threshold, count_unpredicted=strict)
    expected = loops(ground_truth, predictions, threshold, strict)
    assert list(got) == list(expected)
    np.testing.assert_allclose(list(got.values()), list(expected.values()), atol=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_resamples_are_the_metric_of_copied_images(seed):
    """Each image once, and as often as a resample draws it."""
    rng = np.random.default_rng(seed)
    ground_truth, predictions = [], []
    for i in range(12):
        people, poses = random_image(rng, 3, rng.integers(0, 5))
        for pose in poses:  # scores that differ: the order of equal scores is that of images
            pose["scores"] = rng.random(16)
        ground_truth.append({"image": f"{i}.jpg", "people": people})
        predictions.append({"image": f"{i}.jpg", "people": poses})
    once = np.ones(12, int)
    drawn = image_resamples(12, 1, seed)[0]
    assert drawn.max() > 1
    got = resampled_map(ranked_joints(ground_truth, predictions), np.stack([once, drawn]))
    for counts, value in zip((once, drawn), got, strict=True):
        copies = [
            [
                entry | {"image": f"{n}-{entry['image']}"}
                for entry, count in zip(entries, counts, strict=True)
                for n in range(count)
            ]
            for entries in (ground_truth, predictions)
        ]
        expected = mpii_map(*copies)["mAP"]
        assert 1 < expected < 99
        assert value == pytest.approx(expected, abs=1e-9)


def test_resamples_without_joints_have_no_metric():
    joints = ranked_joints([{"image": "a", "people": []}], [])
    assert np.isnan(resampled_map(joints, np.ones((1, 1), int)))


def person(x, head_size=10.0, annotated=None):
    """All joints on a vertical line at x, 20 px apart."""
    joints = np.stack([np.full(16, float(x)), 20.0 * np.arange(16)], -1)
    annotated = np.ones(16, bool) if annotated is None else annotated
    return {"joints": joints, "annotated": annotated, "head_size": head_size}


def pose(x, score=0.9, wrong=()):
    joints = person(x)["joints"]
    joints[list(wrong)] += 1000
    return {"joints": joints, "scores": np.full(16, score)}


def one_image(people, poses):
    return mpii_map([{"image": "a", "people": people}], [{"image": "a", "people": poses}])


def test_the_ground_truth_is_perfect():
    values = one_image([person(0), person(100)], [pose(100), pose(0)])
    assert values == dict.fromkeys(values, 100.0)
    assert list(values) == ["Head", "Shoulder", "Elbow", "Wrist", "Hip", "Knee", "Ankle", "mAP"]


def test_half_a_head_size_is_the_limit():
    assert one_image([person(0)], [pose(5.0)])["mAP"] == 100
    assert one_image([person(0)], [pose(5.001)])["mAP"] == 0


def test_pelvis_and_thorax_do_not_count():
    assert one_image([person(0)], [pose(0, wrong=(6, 7))])["mAP"] == 100
    only_torso = np.isin(np.arange(16), (6, 7))
    people = [person(0, annotated=only_torso), person(100)]
    assert one_image(people, [pose(100)])["mAP"] == 100
    assert math.isnan(one_image(people[:1], [pose(0)])["mAP"])


def test_a_missed_person_costs_recall():
    assert one_image([person(0), person(100)], [pose(0)])["mAP"] == 50
    assert one_image([person(0), person(100)], [])["mAP"] == 0
    assert mpii_map([{"image": "a", "people": [person(0)]}], [])["mAP"] == 0


@pytest.mark.parametrize("left_out", [True, False])
def test_people_in_images_without_poses(left_out, caplog):
    # By the toolkit 1 of 2 people is found, of all people 1 of 3.
    truth = [
        {"image": "a", "people": [person(0), person(100)]},
        {"image": "b.jpg", "people": [person(0)]},
        {"image": "c.jpg", "people": []},
    ]
    poses = [{"image": "a", "people": [pose(0)]}]
    poses += [] if left_out else [{"image": "b.jpg", "people": []}]
    strict = mpii_map(truth, poses, count_unpredicted=True)
    assert strict == pytest.approx(dict.fromkeys(strict, 100 / 3))
    assert not caplog.text
    values = mpii_map(truth, poses)
    assert values == dict.fromkeys(values, 50.0)
    assert "1 images with people have no pose (the first: b.jpg)" in caplog.text
    assert "14 annotated joints do not count" in caplog.text


def test_a_pose_of_no_joints_makes_people_count():
    # The toolkit's loop is over poses, whether they have joints or not.
    nothing = {"joints": np.full((16, 2), np.nan), "scores": np.full(16, np.nan)}
    truth = [{"image": i, "people": [person(0)]} for i in "ab"]
    poses = [{"image": "a", "people": [pose(0)]}, {"image": "b", "people": [nothing]}]
    assert mpii_map(truth, poses)["mAP"] == 50


def test_a_joint_annotated_only_where_nothing_is_predicted_is_not_found():
    no_head = ~np.isin(np.arange(16), (8, 9))
    truth = [
        {"image": "a", "people": [person(0, annotated=no_head)]},
        {"image": "b", "people": [person(0)]},
    ]
    values = mpii_map(truth, [{"image": "a", "people": [pose(0)]}])
    assert (values["Head"], values["Hip"]) == (0, 100)
    assert values["mAP"] == pytest.approx(100 * 12 / 14)


def test_a_second_pose_of_a_person_is_a_false_positive():
    # Ranked below the correct pose it costs nothing, above it halves the precision at all recalls.
    assert one_image([person(0)], [pose(0, 0.9), pose(1, 0.5)])["mAP"] == 100
    # Both are equally good, so the first is assigned, and ranks second.
    assert one_image([person(0)], [pose(1, 0.5), pose(0, 0.9)])["mAP"] == 50


def test_joints_rank_by_their_own_score():
    poses = [pose(0, 0.5), pose(900, 0.4)]
    poses[1]["scores"][[8, 9]] = 0.6  # the wrong pose has higher scores for its head
    values = one_image([person(0)], poses)
    assert values["Head"] == 50
    assert values["mAP"] == pytest.approx((2 * 50 + 12 * 100) / 14)


def test_a_person_takes_the_pose_that_fits_better():
    # Only the hips of the first are correct. It stays unassigned, so its hips are not hits.
    others = [j for j in range(16) if j not in (2, 3)]
    values = one_image([person(0)], [pose(0, 0.9, wrong=others), pose(0, 0.1)])
    assert values == dict.fromkeys(values, 50.0)


def test_each_pose_goes_to_its_best_person_only():
    # Person 1 is close enough to match the pose of person 0, but person 0 takes it and nothing is
    # left for person 1.
    people = [person(0), person(4)]
    people[1]["joints"][0] += 1000
    values = one_image(people, [pose(0)])
    assert values["Knee"] == 50
    assert values["Ankle"] == 50


def test_joints_where_nothing_is_annotated_are_false_positives():
    no_head = ~np.isin(np.arange(16), (8, 9))
    values = one_image([person(0, annotated=no_head), person(100)], [pose(0, 0.9), pose(100, 0.8)])
    assert values["Head"] == 50
    assert values["Hip"] == 100


def test_joints_that_are_not_predicted_are_not_false_positives():
    no_head = ~np.isin(np.arange(16), (8, 9))
    first = pose(0, 0.9)
    first["joints"][[8, 9]] = np.nan
    first["scores"][[8, 9]] = np.nan
    values = one_image([person(0, annotated=no_head), person(100)], [first, pose(100, 0.8)])
    assert values == dict.fromkeys(values, 100.0)


def test_area_under_the_envelope_by_hand():
    # By score: hit, miss, hit, miss, hit of 4 annotated: precision 1, 1/2, 2/3, 2/4, 3/5.
    people = [person(100 * i) for i in range(4)]
    poses = [pose(0, 0.9), pose(900, 0.8), pose(100, 0.7), pose(950, 0.6), pose(200, 0.5)]
    values = one_image(people, poses)
    assert values["mAP"] == pytest.approx(100 * (1 + 2 / 3 + 3 / 5) / 4)


def test_ranks_over_all_images():
    ground_truth = [{"image": i, "people": [person(0)]} for i in (1, 2)]
    predictions = [{"image": 2, "people": [pose(900, 0.9)]}, {"image": 1, "people": [pose(0, 0.5)]}]
    assert mpii_map(ground_truth, predictions)["mAP"] == 25


def test_assign_people_by_hand():
    pckh = np.array([[0.5, 0.6], [0.4, 0.7], [0.3, 0.2], [0.0, 0.0]])
    np.testing.assert_array_equal(assign_people(pckh), [-1, 1, 0, -1])
    np.testing.assert_array_equal(assign_people(np.zeros((2, 0))), [-1, -1])
    np.testing.assert_array_equal(assign_people(np.zeros((0, 2))), [])


def test_reads_json_files(tmp_path):
    people = [{**person(0), "joints": person(0)["joints"].tolist()}]
    people[0]["annotated"] = people[0]["annotated"].astype(int).tolist()
    found = {"joints": [[None, None], *pose(0)["joints"].tolist()[1:]], "scores": [0.5] * 16}
    truth, predicted = tmp_path / "truth.json", tmp_path / "predicted.json"
    truth.write_text(json.dumps([{"image": "a", "people": people}]))
    predicted.write_text(json.dumps([{"image": "a", "people": [found]}]))
    assert mpii_map(truth, str(predicted))["Ankle"] == 50
    with pytest.raises(UserError, match="no annotation file"):
        mpii_map(tmp_path / "none.json", predicted)


def edited(entry, **changes):
    return [{"image": "a", "people": [{**entry, **changes}]}]


@pytest.mark.parametrize(
    ("ground_truth", "predictions", "message"),
    [
        (edited(person(0)), [{"image": "b", "people": []}], "1 images are not in the ground"),
        (edited(person(0)) * 2, [], "'a' twice"),
        (edited(person(0), head_size=0), [], "head_size is not positive"),
        (edited(person(0), head_size=None), [], "head_size is not positive"),
        (edited(person(0), joints=np.zeros((14, 2))), [], "MPII's 16 joints"),
        (edited(person(0), joints=np.full((16, 2), np.nan)), [], "not finite"),
        (edited(person(0), joints="x"), [], "not all numbers"),
        ([{"image": "a"}], [], "has no 'people'"),
        (edited(person(0)), edited(pose(0), scores=np.full(16, np.nan)), "score of a predicted"),
        (edited(person(0)), edited(pose(0), scores=[1.0]), "scores of shape"),
    ],
)
def test_invalid_input_is_reported(ground_truth, predictions, message):
    with pytest.raises(UserError, match=message):
        mpii_map(ground_truth, predictions)


def test_a_file_that_is_not_a_list(tmp_path):
    (tmp_path / "truth.json").write_text('{"a": []}')
    with pytest.raises(UserError, match="not a list"):
        mpii_map(tmp_path / "truth.json", [])


def test_joint_order():
    assert list(MPII.joints) == NAMES
