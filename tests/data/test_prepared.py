import json
import os
import subprocess
import sys

import numpy as np
import pytest
from tiny_sets import write_coco, write_lsp, write_mpii

from rmpe_jax.data.images import ImageError
from rmpe_jax.data.prepare import prepare
from rmpe_jax.data.prepared import PreparedImages, open_prepared, read_people
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


def test_records_hold_all_that_the_images_do(folder, specs):
    images = open_prepared(folder)
    stored = {(r["dataset"], r["image_id"]): r for r in (images[i] for i in range(len(images)))}
    assert len(stored) == len(images) == 2 + 2 + 40  # COCO's third image has no people
    for dataset in map(open_dataset, specs):
        indices = UNION.indices_in(dataset.skeleton)
        for record in dataset.images:
            if not len(record.bboxes):
                continue
            found = stored.pop((dataset.name, record.image_id))
            joints = pick_joints(record.keypoints, record.visibility, indices)
            np.testing.assert_array_equal(found["keypoints"], joints[0])
            np.testing.assert_array_equal(found["visibility"], joints[1])
            np.testing.assert_array_equal(found["annotated"], indices >= 0)
            for name in ("bboxes", "area"):
                np.testing.assert_array_equal(found[name], np.float32(getattr(record, name)))
                assert found[name].dtype == np.float32
            for name in ("iscrowd", "head_sizes", "person_ids"):
                np.testing.assert_array_equal(found[name], getattr(record, name), err_msg=name)
                assert found[name].dtype == getattr(record, name).dtype
            assert found["encoded"] == record.path.read_bytes()
            assert found["skeleton"] == dataset.skeleton.name
            assert found["name"] == f"{dataset.name}/{record.path.name}"
    assert not stored


def test_the_index_finds_the_people_to_train_on(folder):
    images, people = open_prepared(folder), read_people(folder)
    assert len(people.record_index) == 2 + 3 + 40
    found = set()
    for record_index, person_index, labeled in zip(*people, strict=True):
        record = images[int(record_index)]
        assert not record["iscrowd"][person_index]
        np.testing.assert_array_equal(record["visibility"][person_index] > 0, labeled)
        assert labeled.any()
        found.add((record["dataset"], int(record["person_ids"][person_index])))
    assert {i for name, i in found if name == "coco/mini"} == {100, 101}
    assert len(found) == len(people.record_index)


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
        f"{tmp_path}/none is not a complete prepared folder: create it with `rmpe prepare`"
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


def test_a_cut_index_is_one_clear_line(folder):
    index = folder / "people.npz"
    os.truncate(index, index.stat().st_size // 2)
    with pytest.raises(UserError, match=r"people\.npz is damaged: recreate the folder with `rmpe"):
        read_people(folder)


def test_a_damaged_record_is_an_image_that_cannot_be_read(folder):
    images = open_prepared(folder)
    for shard in folder.glob("*array_record*"):
        content = bytearray(shard.read_bytes())
        content[100:-70_000] = bytes(len(content) - 70_100)  # all records, not the final index
        shard.write_bytes(content)
    fresh = PreparedImages(folder)
    with pytest.raises(ImageError, match=r"^record 3 of .*out cannot be read: recreate the f"):
        fresh[3]
    assert len(images) == len(fresh)


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
