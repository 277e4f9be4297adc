"""Reader of CrowdPose (Li et al., CVPR 2019): COCO's format with 14 joints."""

import os
import pathlib

from rmpe_jax.data.readers.coco import read_coco_file
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.skeletons import CROWDPOSE


def read_crowdpose(folder: str | os.PathLike, split: str) -> PoseDataset:
    """One split of a CrowdPose folder. It has no segment areas, so `area` is that of the box.

    Reads `json/crowdpose_SPLIT.json`, or else `annotations/crowdpose_SPLIT.json`, with the images
    in `images/`. The `crowdIndex` of images is not read here; evaluation reads it from the file.

    Raises:
      UserError: as `read_coco_file`.
    """
    folder = pathlib.Path(folder)
    annotations = folder / "json" / f"crowdpose_{split}.json"
    elsewhere = folder / "annotations" / annotations.name
    if not annotations.exists() and elsewhere.exists():
        annotations = elsewhere
    return read_coco_file(annotations, folder / "images", f"crowdpose/{split}", CROWDPOSE)
