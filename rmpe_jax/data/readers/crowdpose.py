"""Reader of CrowdPose (Li et al., CVPR 2019): COCO's format with 14 joints."""

import os
import pathlib

from rmpe_jax.data.readers.coco import coco_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.files import read_json
from rmpe_jax.skeletons import CROWDPOSE


def read_crowdpose(folder: str | os.PathLike, split: str) -> PoseDataset:
    """One split of a CrowdPose folder. It has no segment areas, so `area` is that of the box.

    Reads `json/crowdpose_SPLIT.json`, or else `annotations/crowdpose_SPLIT.json`, with the images
    in `images/`. The `crowdIndex` of images is kept for evaluation. `num_keypoints`, which counts
    only visible joints here, is not read.

    Raises:
      UserError: as `coco_dataset`, or the file is missing or not JSON.
    """
    folder = pathlib.Path(folder)
    path = folder / "json" / f"crowdpose_{split}.json"
    elsewhere = folder / "annotations" / path.name
    if not path.exists() and elsewhere.exists():
        path = elsewhere
    document = read_json(path, "annotation file")
    return coco_dataset(
        document,
        path,
        folder / "images",
        f"crowdpose/{split}",
        CROWDPOSE,
        check_num_keypoints=False,
    )
