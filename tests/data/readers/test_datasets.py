import pytest
from tiny_sets import write_coco, write_crowdpose, write_json, write_lsp, write_mpii

from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.errors import UserError


def test_each_format_has_its_form(tmp_path):
    write_coco(tmp_path / "c")
    document = tmp_path / "c" / "annotations" / "person_keypoints_mini.json"
    write_json(document.with_name("person_keypoints.json"), {"images": [], "annotations": []})
    write_mpii(tmp_path / "m")
    write_lsp(tmp_path / "l")
    write_crowdpose(tmp_path / "p")
    assert open_dataset(f"coco:{tmp_path}/c:mini").name == "coco/mini"
    assert open_dataset(f"mpii:{tmp_path}/m:mini").name == "mpii/mini"
    assert open_dataset(f"lsp:{tmp_path}/l").name == "lsp/l"
    assert open_dataset(f"crowdpose:{tmp_path}/p:mini").name == "crowdpose/mini"
    with pytest.raises(UserError, match=r"person_keypoints\.json has no people"):
        open_dataset(f"coco:{tmp_path}/c")


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "coco",
        "coco:",
        "coco::val2017",
        "ochuman:data:val",
        "mpii:data",
        "mpii:data:",
        "lsp:a:b",
    ],
)
def test_a_spec_of_no_known_form_is_one_clear_line(spec):
    with pytest.raises(UserError) as error:
        open_dataset(spec)
    assert str(error.value) == (
        f"{spec!r} is not a dataset: write coco:FOLDER[:SPLIT], mpii:FOLDER:SPLIT, lsp:FOLDER, "
        "crowdpose:FOLDER:SPLIT, coco_wholebody:FOLDER:SPLIT, halpe136:FOLDER:SPLIT, "
        "halpe26:FOLDER:SPLIT"
    )
