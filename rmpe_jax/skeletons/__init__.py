"""Joint sets: names, flip partners, limbs and OKS sigmas, each with its source.

Shared by host and device code; imports NumPy alone.
"""

import math

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons.body import COCO, CROWDPOSE, LSP, MPII, UNION
from rmpe_jax.skeletons.skeleton import UNNAMED, Skeleton
from rmpe_jax.skeletons.whole_body import COCO_WHOLEBODY, HALPE26, HALPE136

__all__ = [
    "COCO",
    "COCO_WHOLEBODY",
    "CROWDPOSE",
    "HALPE26",
    "HALPE136",
    "LSP",
    "MPII",
    "SKELETONS",
    "UNION",
    "Skeleton",
    "get_skeleton",
]

SKELETONS = {
    s.name: s for s in (COCO, MPII, LSP, CROWDPOSE, UNION, HALPE26, HALPE136, COCO_WHOLEBODY)
}


def get_skeleton(name: str) -> Skeleton:
    """The skeleton called `name`.

    `unnamed_21` has 21 joints about which nothing is known, as in a converted checkpoint of a joint
    set that is not here: no limbs, no left and right, OKS sigmas NaN.

    Raises:
      UserError: there is none of that name.
    """
    number = name.removeprefix(UNNAMED)
    if name != number and number.isdecimal() and int(number) > 0:
        joints = tuple(f"joint_{index}" for index in range(int(number)))
        return Skeleton(name, joints, (), (math.nan,) * len(joints))
    if name not in SKELETONS:
        raise UserError(f"no skeleton is called {name!r}: use one of {', '.join(SKELETONS)}")
    return SKELETONS[name]
