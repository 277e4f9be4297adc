"""Opens datasets by the spec of command lines and configs: FORMAT:FOLDER:SPLIT."""

from rmpe_jax.data.readers.coco import read_coco
from rmpe_jax.data.readers.crowdpose import read_crowdpose
from rmpe_jax.data.readers.lsp import read_lsp
from rmpe_jax.data.readers.mpii import read_mpii
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.data.readers.whole_body import read_coco_wholebody, read_halpe
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import HALPE26, HALPE136

_FORMS = (
    "coco:FOLDER[:SPLIT], mpii:FOLDER:SPLIT, lsp:FOLDER, crowdpose:FOLDER:SPLIT, "
    "coco_wholebody:FOLDER:SPLIT, halpe136:FOLDER:SPLIT, halpe26:FOLDER:SPLIT"
)


def open_dataset(spec: str) -> PoseDataset:
    """Read the dataset that `spec` names.

    Args:
      spec: `coco:FOLDER:SPLIT` (`coco:FOLDER` for `annotations/person_keypoints.json` with
        `images/`), `mpii:FOLDER:SPLIT`, `lsp:FOLDER`, `crowdpose:FOLDER:SPLIT`,
        `coco_wholebody:FOLDER:SPLIT`, `halpe136:FOLDER:SPLIT` or `halpe26:FOLDER:SPLIT`.

    Raises:
      UserError: `spec` has another form, or the annotations are unusable.
    """
    match spec.split(":"):
        case ["coco", folder] if folder:
            return read_coco(folder)
        case ["coco", folder, split] if folder:
            return read_coco(folder, split)
        case ["mpii", folder, split] if folder and split:
            return read_mpii(folder, split)
        case ["lsp", folder] if folder:
            return read_lsp(folder)
        case ["crowdpose", folder, split] if folder and split:
            return read_crowdpose(folder, split)
        case ["coco_wholebody", folder, split] if folder and split:
            return read_coco_wholebody(folder, split)
        case ["halpe136", folder, split] if folder and split:
            return read_halpe(folder, split, HALPE136)
        case ["halpe26", folder, split] if folder and split:
            return read_halpe(folder, split, HALPE26)
    raise UserError(f"{spec!r} is not a dataset: write {_FORMS}")
