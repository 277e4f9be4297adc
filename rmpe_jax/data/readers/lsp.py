"""Reader of Leeds Sports Pose (Johnson & Everingham, BMVC 2010) and LSP Extended (CVPR 2011)."""

import math
import os
import pathlib

import numpy as np
import scipy.io
from jaxtyping import Float

from rmpe_jax.data.readers.annotations import ImageFile, Person, extent_box, make_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import LSP


def read_lsp(folder: str | os.PathLike) -> PoseDataset:
    """An LSP folder: `joints.mat` with the images in `images/`, one person in each.

    The two datasets are distinguished by the shape of `joints`:

    * LSP: (3, 14, n), images `im0001.jpg`, …; all joints are annotated, the flag marks occluded
      joints.
    * LSP Extended: (14, 3, n), images `im00001.jpg`, …; the flag marks annotated joints.

    The files have no boxes; `extent_box` computes them from the joints. Image ids are the file
    names, person ids the positions in the file.

    Raises:
      UserError: `joints.mat` is missing, is not a MATLAB file, has no `joints` of one of these
        shapes, or has joints that are not finite.
    """
    folder = pathlib.Path(folder)
    annotations = folder / "joints.mat"
    joints, extended = _read_joints(annotations)
    digits = 5 if extended else 4
    people = {
        f"im{place + 1:0{digits}d}.jpg": [_person(rows, place, extended, annotations)]
        for place, rows in enumerate(joints)
    }
    images = {file_name: ImageFile(folder / "images" / file_name) for file_name in people}
    return make_dataset(f"lsp/{folder.resolve().name}", LSP, annotations, images, people)


def _read_joints(annotations: pathlib.Path) -> tuple[Float[np.ndarray, "n 14 3"], bool]:
    """(x, y, flag) of every joint of every person, and whether the file is LSP Extended."""
    if not annotations.exists():
        raise UserError(f"no annotation file {annotations}: check the folder")
    try:
        content = scipy.io.loadmat(annotations)
    except Exception as error:  # SciPy raises many types
        raise UserError(f"{annotations} is not a MATLAB 5 file: fetch it again") from error
    if "joints" not in content:
        raise UserError(f"{annotations} has no 'joints': use the dataset's original file")
    joints = content["joints"]
    if not isinstance(joints, np.ndarray) or joints.dtype.kind not in "iuf":
        raise UserError(f"{annotations} has joints that are not numbers: fetch it again")
    if joints.ndim == 3 and joints.shape[:2] == (3, LSP.num_keypoints):
        return joints.transpose(2, 1, 0).astype(np.float32), False
    if joints.ndim == 3 and joints.shape[:2] == (LSP.num_keypoints, 3):
        return joints.transpose(2, 0, 1).astype(np.float32), True
    line = f"{annotations} has joints of shape {joints.shape}, not (3, 14, n) or (14, 3, n)"
    raise UserError(f"{line}: use the dataset's original file")


def _person(
    rows: Float[np.ndarray, "14 3"], place: int, extended: bool, annotations: pathlib.Path
) -> Person:
    if not np.isfinite(rows).all():
        line = f"{annotations}: person {place} has joints with NaN or infinity: fix the file"
        raise UserError(line)
    flag = rows[:, 2] > 0
    visibility = (np.where(flag, 2, 0) if extended else np.where(flag, 1, 2)).astype(np.uint8)
    bbox = extent_box(rows[:, :2], visibility)
    area = float(geometry.box_area(bbox))
    return Person(rows[:, :2], visibility, bbox, area, False, math.nan, place)
