"""Skeletons: joint names, flip partners, limbs and OKS sigmas, each with its source.

Shared by host and device code; imports only NumPy.
"""

import math

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons.body import COCO, CROWDPOSE, LSP, MPII, POSETRACK, UNION
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX, Skeleton
from rmpe_jax.skeletons.whole_body import COCO_WHOLEBODY, FACE_AND_HANDS, HALPE26, HALPE136

__all__ = [
    "COCO",
    "COCO_WHOLEBODY",
    "CROWDPOSE",
    "HALPE26",
    "HALPE136",
    "LSP",
    "MPII",
    "POSETRACK",
    "SKELETONS",
    "UNION",
    "Skeleton",
    "get_skeleton",
]

SKELETONS = {
    s.name: s
    for s in (COCO, MPII, LSP, CROWDPOSE, UNION, HALPE26, HALPE136, COCO_WHOLEBODY, POSETRACK)
}


def get_skeleton(name: str) -> Skeleton:
    """The skeleton called `name`.

    `unnamed_21` has 21 joints of unknown meaning, as in a converted checkpoint of a joint set that
    is not listed here: no limbs, no left and right, OKS sigmas NaN. If there are more than the 110
    joints of a face and two hands, these are taken to be the last ones, as AlphaPose takes them.

    Raises:
      UserError: there is no such skeleton.
    """
    number = name.removeprefix(UNNAMED_PREFIX)
    if name != number and number.isdecimal() and int(number) > 0:
        return _unnamed(name, int(number))
    if name not in SKELETONS:
        raise UserError(f"no skeleton is called {name!r}: use one of {', '.join(SKELETONS)}")
    return SKELETONS[name]


def _unnamed(name: str, num_keypoints: int) -> Skeleton:
    joints = tuple(f"joint_{index}" for index in range(num_keypoints))
    body = num_keypoints - sum(size for _, size in FACE_AND_HANDS)
    part_sizes = (("body", body), *FACE_AND_HANDS) if body > 0 else ()
    return Skeleton(name, joints, (), (math.nan,) * num_keypoints, part_sizes)
