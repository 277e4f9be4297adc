"""Joint sets: names, flip partners, limbs and OKS sigmas, each with its source.

Flip indices and limbs are derived from joint names, so that a table can only be wrong in one place.
This module is shared by host and device code and imports NumPy alone.
"""

import dataclasses
import functools

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A set of joints.

    Attributes:
      name: short name, as used in configs.
      joints: joint names in the order of the data set, spelled `left_*` / `right_*`.
      limbs: pairs of joint names that are drawn as a line.
      oks_sigmas: per joint OKS sigma in COCO's sense (the constant k_i is twice this).
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]
    oks_sigmas: tuple[float, ...]

    @property
    def num_keypoints(self) -> int:
        return len(self.joints)

    @functools.cached_property
    def flip_indices(self) -> Int[np.ndarray, " k"]:
        """`keypoints[flip_indices]` swaps left and right."""
        return np.array([self.index(_mirrored(joint)) for joint in self.joints])

    @functools.cached_property
    def limb_indices(self) -> Int[np.ndarray, "limbs 2"]:
        return np.array([[self.index(a), self.index(b)] for a, b in self.limbs])

    @functools.cached_property
    def sigmas(self) -> Float[np.ndarray, " k"]:
        return np.array(self.oks_sigmas)

    @functools.cached_property
    def is_upper_body(self) -> np.ndarray:
        """Boolean (k,): joints above the hips, for half-body augmentation."""
        lower = ("hip", "knee", "ankle", "pelvis")
        return np.array([not joint.endswith(lower) for joint in self.joints])

    def index(self, joint: str) -> int:
        return self.joints.index(joint)

    def indices_in(self, other: "Skeleton") -> Int[np.ndarray, " k"]:
        """For each of our joints its index in `other`, or -1 where `other` lacks it."""
        return np.array([other.joints.index(j) if j in other.joints else -1 for j in self.joints])


def _mirrored(joint: str) -> str:
    if joint.startswith("left_"):
        return "right_" + joint.removeprefix("left_")
    if joint.startswith("right_"):
        return "left_" + joint.removeprefix("right_")
    return joint


_ARMS_AND_LEGS = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
_TORSO = (
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
)
_FACE = (
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)
_NECK = (("head_top", "upper_neck"),)

# OKS sigmas of COCO: the keypoint evaluation of cocodataset.org, as in pycocotools
# `Params.setKpParams`. Sigmas of head top and neck: CrowdPose's evaluation (Li et al., CVPR 2019)
# uses .079 for both; pelvis and thorax are on no benchmark and take the hip's and shoulder's.
_SIGMA = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "head_top": 0.079,
    "upper_neck": 0.079,
    "thorax": 0.079,
    "pelvis": 0.107,
}


def _skeleton(name: str, joints: str, limbs: tuple[tuple[str, str], ...]) -> Skeleton:
    names = tuple(joints.split())
    sigmas = tuple(_SIGMA[j.removeprefix("left_").removeprefix("right_")] for j in names)
    return Skeleton(name, names, limbs, sigmas)


COCO = _skeleton(  # Lin et al., ECCV 2014; order of the `categories` entry of the annotation files
    "coco",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle",
    (*_ARMS_AND_LEGS, *_TORSO, *_FACE),
)

MPII = _skeleton(  # Andriluka et al., CVPR 2014; joint ids 0-15 of the annotation release
    "mpii",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck "
    "head_top right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
    (*_ARMS_AND_LEGS, *_TORSO, *_NECK, ("upper_neck", "thorax"), ("thorax", "pelvis")),
)

LSP = _skeleton(  # Johnson & Everingham, BMVC 2010 and CVPR 2011; rows of `joints.mat`.
    # Its "neck" is MPII's upper neck, the convention of unions of the two sets.
    "lsp",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow "
    "right_shoulder left_shoulder left_elbow left_wrist upper_neck head_top",
    (*_ARMS_AND_LEGS, *_TORSO, *_NECK),
)

CROWDPOSE = _skeleton(  # Li et al., CVPR 2019; order of the `categories` entry of its json
    "crowdpose",
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip "
    "right_hip left_knee right_knee left_ankle right_ankle head_top upper_neck",
    (*_ARMS_AND_LEGS, *_TORSO, *_NECK),
)

# Everything the four sets annotate, COCO first: a network trained on it serves all of them.
UNION = _skeleton(
    "union",
    " ".join((*COCO.joints, "pelvis", "thorax", "upper_neck", "head_top")),
    (*COCO.limbs, *_NECK, ("upper_neck", "thorax"), ("thorax", "pelvis")),
)

SKELETONS = {s.name: s for s in (COCO, MPII, LSP, CROWDPOSE, UNION)}


def get_skeleton(name: str) -> Skeleton:
    """The skeleton called `name`.

    Raises:
      UserError: there is none of that name.
    """
    if name not in SKELETONS:
        raise UserError(f"no skeleton is called {name!r}: use one of {', '.join(SKELETONS)}")
    return SKELETONS[name]
