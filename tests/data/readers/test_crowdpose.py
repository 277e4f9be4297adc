import numpy as np
import pytest
from tiny_sets import coco_document, raster, write_crowdpose, write_json

from rmpe_jax.data.images import read_image
from rmpe_jax.data.readers.crowdpose import read_crowdpose
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import COCO, CROWDPOSE


@pytest.mark.parametrize("place", ["json", "annotations"])
def test_both_layouts_are_read(tmp_path, place):
    write_crowdpose(tmp_path)
    (tmp_path / "json").rename(tmp_path / place)
    dataset = read_crowdpose(tmp_path, "mini")
    assert dataset.name == "crowdpose/mini"
    assert dataset.skeleton is CROWDPOSE
    assert dataset.annotations == tmp_path / place / "crowdpose_mini.json"
    second = dataset.images[1]
    expected = np.float32(coco_document(CROWDPOSE)["annotations"][0]["keypoints"]).reshape(14, 3)
    np.testing.assert_array_equal(second.keypoints[0], expected[:, :2])
    np.testing.assert_array_equal(second.visibility[0], expected[:, 2])
    np.testing.assert_array_equal(second.area, np.float32([70 * 48.5] * 3))  # of the box
    np.testing.assert_array_equal(read_image(second.path), raster(1))


def test_an_annotation_file_of_coco_is_refused(tmp_path):
    write_json(tmp_path / "json" / "crowdpose_mini.json", coco_document(COCO))
    with pytest.raises(UserError, match="annotation 100 has 51 numbers in keypoints, not 42"):
        read_crowdpose(tmp_path, "mini")


def test_no_file(tmp_path):
    with pytest.raises(UserError, match=r"no annotation file .*json/crowdpose_mini\.json: check"):
        read_crowdpose(tmp_path, "mini")
