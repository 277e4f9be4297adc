import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_sets import write_coco, write_lsp, write_mpii

from rmpe_jax.data.pictures import PictureError
from rmpe_jax.data.prepare import prepare
from rmpe_jax.data.prepared import PreparedPictures, open_prepared, read_people
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import pick_joints
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION


@pytest.fixture
def specs(tmp_path):
    write_coco(tmp_path / "coco")
    write_mpii(tmp_path / "mpii")
    write_lsp(tmp_path / "lsp", people=40)
    return (f"coco:{tmp_path}/coco:mini", f"mpii:{tmp_path}/mpii:mini", f"lsp:{tmp_path}/lsp")


@pytest.fixture
def folder(specs, tmp_path):
    prepare(tmp_path / "out", specs, num_shards=3)
    return tmp_path / "out"


def test_records_hold_all_that_the_pictures_do(folder, specs):
    pictures = open_prepared(folder)
    stored = {(p["dataset"], p["image_id"]): p for p in (pictures[i] for i in range(len(pictures)))}
    assert len(stored) == len(pictures) == 2 + 2 + 40  # the third of COCO has nobody in it
    for dataset in map(open_dataset, specs):
        indices = UNION.indices_in(dataset.skeleton)
        for picture in dataset.pictures:
            if not len(picture.bboxes):
                continue
            record = stored.pop((dataset.name, picture.image_id))
            joints = pick_joints(picture.keypoints, picture.visibility, indices)
            np.testing.assert_array_equal(record["keypoints"], joints[0])
            np.testing.assert_array_equal(record["visibility"], joints[1])
            np.testing.assert_array_equal(record["annotated"], indices >= 0)
            for name in ("bboxes", "area", "iscrowd", "head_sizes", "person_ids"):
                np.testing.assert_array_equal(record[name], getattr(picture, name), err_msg=name)
                assert record[name].dtype == getattr(picture, name).dtype
            assert record["encoded"] == picture.path.read_bytes()
            assert record["skeleton"] == dataset.skeleton.name
            assert record["name"] == f"{dataset.name}/{picture.path.name}"
    assert not stored


def test_the_index_finds_the_people_to_train_on(folder):
    pictures, people = open_prepared(folder), read_people(folder)
    assert len(people.record) == 2 + 3 + 40
    found = set()
    for record, person, labelled in zip(*people, strict=True):
        picture = pictures[int(record)]
        assert not picture["iscrowd"][person]
        np.testing.assert_array_equal(picture["visibility"][person] > 0, labelled)
        assert labelled.any()
        found.add((picture["dataset"], int(picture["person_ids"][person])))
    assert {i for name, i in found if name == "coco/mini"} == {100, 101}
    assert len(found) == len(people.record)


def test_people_are_spread_over_the_files_asked_for(folder):
    assert len(list(folder.glob("*array_record*"))) == 3
    lengths = open_prepared(folder).shard_lengths
    assert len(lengths) == 3
    assert sum(lengths) == 44


def test_nothing_in_the_folder_names_where_it_was_made(folder, tmp_path):
    for path in folder.glob("*.json"):
        assert str(tmp_path) not in path.read_text()
        json.loads(path.read_text())


def test_a_missing_folder(tmp_path):
    with pytest.raises(UserError) as error:
        open_prepared(tmp_path / "none")
    assert str(error.value) == (
        f"{tmp_path}/none is no complete prepared data: write it with `rmpe prepare`"
    )


@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "features", "info", "index"])
def test_a_damaged_folder_is_one_clear_line(folder, damage):
    shard = sorted(folder.glob("*array_record*"))[-1]
    if damage == "missing":
        shard.unlink()
    elif damage == "cut":
        os.truncate(shard, shard.stat().st_size // 2)
    elif damage == "empty":
        os.truncate(shard, 0)
    else:
        names = {"features": "features.json", "info": "dataset_info.json", "index": "people.npz"}
        (folder / names[damage]).unlink()
    with pytest.raises(UserError, match=r"`rmpe prepare`$"):
        open_prepared(folder)


def test_a_damaged_record_is_a_picture_that_cannot_be_read(folder):
    pictures = open_prepared(folder)
    for shard in folder.glob("*array_record*"):
        content = bytearray(shard.read_bytes())
        content[100:-70_000] = bytes(len(content) - 70_100)  # all records, not the index behind
        shard.write_bytes(content)
    fresh = PreparedPictures(folder)
    with pytest.raises(
        PictureError, match=r"^record 3 of .*out cannot be read: write the folder a"
    ):
        fresh[3]
    assert len(pictures) == len(fresh)


def test_neither_tensorflow_nor_jax_is_needed(specs, tmp_path):
    script = (
        "import sys\n"
        "from rmpe_jax.data.prepare import prepare\n"
        "from rmpe_jax.data.sources import open_source\n"
        "from rmpe_jax.skeletons import UNION\n"
        f"prepare({str(tmp_path / 'out')!r}, {specs!r})\n"
        f"assert len(list(open_source(('prepared:{tmp_path}/out',), UNION))) == 45\n"
        "assert not {'jax', 'tensorflow'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
