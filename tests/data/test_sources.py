import os
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_sets import (
    coco_annotation,
    coco_document,
    mpii_entry,
    raster,
    write_coco,
    write_lsp,
    write_mpii,
)

from rmpe_jax.data.images import ImageError, decode_image
from rmpe_jax.data.prepare import prepare
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.sources import MixedSource, PersonSource, open_source
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, LSP, MPII, UNION


@pytest.fixture
def specs(tmp_path):
    write_coco(tmp_path / "coco")
    write_mpii(tmp_path / "mpii")
    write_lsp(tmp_path / "lsp")
    return tuple(
        f"{s}".format(tmp_path) for s in ("coco:{}/coco:mini", "mpii:{}/mpii:mini", "lsp:{}/lsp")
    )


def assert_same_person(a: dict, b: dict):
    assert set(a) == set(b)
    for key in set(a) - {"name"}:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        assert type(a[key]) is type(b[key]), key
        assert getattr(a[key], "dtype", None) == getattr(b[key], "dtype", None), key


def test_a_person_in_the_datasets_own_skeleton(specs):
    source = PersonSource(open_dataset(specs[0]), COCO)
    assert len(source) == 2  # of four; one is unlabeled and one a crowd
    person = source[1]
    expected = np.float32(coco_annotation(100, 8)["keypoints"]).reshape(17, 3)
    np.testing.assert_array_equal(person["keypoints"], expected[:, :2])
    np.testing.assert_array_equal(person["visibility"], expected[:, 2])
    np.testing.assert_array_equal(person["bbox"], np.float32([4.5, 6.25, 74.5, 54.75]))
    assert person["annotated"].all()
    assert (person["person_id"], person["image_id"]) == (100, 8)
    assert person["name"].endswith(os.path.join("mini", "8.png"))
    np.testing.assert_array_equal(decode_image(person["encoded"], ""), raster(1))


def test_a_person_in_the_union_skeleton(specs):
    person = PersonSource(open_dataset(specs[1]), UNION)[2]
    expected = mpii_entry(1, "b.jpg")["joints"]
    for j, joint in enumerate(UNION.joints):
        known = joint in MPII.joints
        assert person["annotated"][j] == known
        assert person["visibility"][j] == (2 if known else 0)
        point = np.float32(expected[MPII.joints.index(joint)]) if known else (0, 0)
        np.testing.assert_array_equal(person["keypoints"][j], point)


def test_people_without_joints_of_the_skeleton_are_left_out(tmp_path):
    face_only = np.zeros((17, 3))
    face_only[:5] = 2
    document = coco_document()
    document["annotations"][0]["keypoints"] = face_only.ravel().tolist()
    dataset = open_dataset(f"coco:{write_coco(tmp_path, document=document)}:mini")
    assert [person["person_id"] for person in PersonSource(dataset, COCO)] == [101, 100]
    assert [person["person_id"] for person in PersonSource(dataset, LSP)] == [101]


def test_nobody_to_train_on_is_one_clear_line(tmp_path):
    document = coco_document()
    document["annotations"] = document["annotations"][2:]
    folder = write_coco(tmp_path, document=document)
    with pytest.raises(UserError) as error:
        open_source((f"coco:{folder}:mini",), COCO)
    assert str(error.value) == (
        "coco/mini has no people to train on with the skeleton 'coco': 1 people without labeled "
        "joints, 1 crowds; use another dataset or skeleton"
    )


def test_a_dataset_that_has_been_read_is_not_read_again(specs):
    source = open_source((open_dataset(specs[0]), specs[1]), UNION)
    for person, expected in zip(source, open_source(specs[:2], UNION), strict=True):
        assert_same_person(person, expected)


def test_a_missing_image_is_named_when_it_is_read(specs, tmp_path):
    (tmp_path / "coco" / "mini" / "8.png").unlink()
    source = open_source(specs, UNION)
    source[0]
    with pytest.raises(ImageError, match=r"8\.png is missing"):
        source[1]


def test_a_mixture_repeats_its_parts(specs):
    source = open_source(specs, UNION, repeats=(3, 1, 2))
    ids = [(type(p["image_id"]), p["person_id"]) for p in source]
    coco, mpii, lsp = (
        [(int, 101), (int, 100)],
        [(str, 0), (str, 2), (str, 1)],
        [(str, i) for i in range(3)],
    )
    assert ids == coco * 3 + mpii + lsp * 2
    assert len(source) == len(ids)
    with pytest.raises(IndexError):
        source[len(source)]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 4)), min_size=1, max_size=5))
def test_mixed_source_is_the_concatenation(parts):
    sources = tuple(
        [{"place": (i, j)} for j in range(length)] for i, (length, _) in enumerate(parts)
    )
    repeats = tuple(repeat for _, repeat in parts)
    mixed = MixedSource(sources, repeats)
    expected = [x for source, n in zip(sources, repeats, strict=True) for x in source * n]
    assert [mixed[i] for i in range(len(mixed))] == expected


@pytest.mark.parametrize("repeats", [(1,), (1, 1, 1, 1), (1, 0, 1), (1, -2, 1)])
def test_repeats_that_do_not_fit(specs, repeats):
    with pytest.raises(UserError, match="do not fit 3 datasets: give one whole number >= 1 for"):
        open_source(specs, UNION, repeats)


def test_no_dataset_at_all():
    with pytest.raises(UserError, match="no dataset to train on"):
        open_source((), UNION)


@pytest.mark.parametrize("skeleton", [UNION, COCO, MPII], ids=lambda s: s.name)
def test_prepared_people_are_the_same(specs, tmp_path, skeleton):
    prepare(tmp_path / "out", specs, num_shards=2)
    plain = {(str(p["image_id"]), p["person_id"]): p for p in open_source(specs, skeleton)}
    prepared = list(open_source((f"prepared:{tmp_path}/out",), skeleton))
    assert len(prepared) == len(plain) == 8
    for person in prepared:
        assert_same_person(person, plain[str(person["image_id"]), person["person_id"]])


@pytest.mark.parametrize("form", ["plain", "prepared"])
def test_sources_can_be_sent_to_worker_processes(specs, tmp_path, form):
    if form == "prepared":
        prepare(tmp_path / "out", specs)
        specs = (f"prepared:{tmp_path}/out",)
    source = open_source(specs, UNION)
    before = source[3]  # an opened reader must not prevent pickling
    copy = pickle.loads(pickle.dumps(source))
    assert len(copy) == len(source)
    assert_same_person(copy[3], before)


def test_a_prepared_folder_that_is_none(tmp_path):
    with pytest.raises(UserError, match="is not a complete prepared folder: create it with `rmpe"):
        open_source((f"prepared:{tmp_path}",), UNION)


def test_real_mixture(shared_data):
    specs = (
        f"coco:{shared_data}/coco:train2017",
        f"mpii:{shared_data}/mpii:train",
        f"lsp:{shared_data}/lsp_extended",
    )
    source = open_source(specs, UNION)
    assert len(source) == 477 + 1794 + 9000
    for index, joints in ((0, 17), (477, 16), (477 + 1794, 14), (len(source) - 1, 14)):
        person = source[index]
        assert person["annotated"].sum() == joints
        height, width = decode_image(person["encoded"], person["name"]).shape[:2]
        points = person["keypoints"][person["visibility"] > 0]
        assert (points >= -2).all()
        assert (points <= [width + 2, height + 2]).all()
