"""The class `Skeleton`; the other modules of this package define the skeletons.

Flip indices and limbs are derived from joint names, so each fact is written down only once.
"""

import dataclasses
import functools
import itertools

import numpy as np
from jaxtyping import Bool, Float, Int

from rmpe_jax.errors import UserError

UNNAMED_PREFIX = "unnamed_"  # followed by the number of joints, see `get_skeleton`


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A set of joints, hashable and so usable as a static argument of `jit`.

    Attributes:
      name: short name, as used in configs.
      joints: joint names in the order of the dataset, spelled `left_*` / `right_*`.
      limbs: pairs of joint names that are drawn as a line.
      oks_sigmas: OKS sigma of each joint in COCO's sense (the constant k_i is twice this).
      part_sizes: name and number of joints of each part, in the order of the joints; empty if all
        joints are one body.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]
    oks_sigmas: tuple[float, ...]
    part_sizes: tuple[tuple[str, int], ...] = ()

    @property
    def num_keypoints(self) -> int:
        """The number of joints, k."""
        return len(self.joints)

    @functools.cached_property
    def flip_indices(self) -> Int[np.ndarray, " k"]:
        """The index of each joint's mirror partner: `keypoints[flip_indices]` swaps left and right.

        Raises:
          UserError: the joints have no names, see `get_skeleton`.
        """
        if self.name.startswith(UNNAMED_PREFIX):
            raise UserError(
                f"skeleton {self.name!r} does not say which joints are left and right: switch "
                "flips off, or use a skeleton whose joints have names"
            )
        return np.array([self.index(_mirrored(joint)) for joint in self.joints])

    @functools.cached_property
    def limb_indices(self) -> Int[np.ndarray, "limbs 2"]:
        """`limbs` as pairs of joint indices."""
        pairs = [(self.index(a), self.index(b)) for a, b in self.limbs]
        return np.array(pairs, int).reshape(-1, 2)

    @functools.cached_property
    def sigmas(self) -> Float[np.ndarray, " k"]:
        """`oks_sigmas` as an array."""
        return np.array(self.oks_sigmas)

    @functools.cached_property
    def is_upper_body(self) -> Bool[np.ndarray, " k"]:
        """Whether each joint is above the hips, for half-body augmentation."""
        lower = ("hip", "knee", "ankle", "pelvis", "big_toe", "small_toe", "heel")
        return np.array([not joint.endswith(lower) for joint in self.joints])

    @functools.cached_property
    def parts(self) -> dict[str, slice]:
        """The slice of each part: "body" and, if present, "foot", "face" and the two hands."""
        sizes = self.part_sizes or (("body", self.num_keypoints),)
        ends = itertools.accumulate(size for _, size in sizes)
        return {name: slice(end - size, end) for (name, size), end in zip(sizes, ends, strict=True)}

    def index(self, joint: str) -> int:
        """The index of a joint.

        Raises:
          UserError: the skeleton does not have the joint.
        """
        if joint not in self.joints:
            raise UserError(
                f"skeleton {self.name!r} has no joint {joint!r}: use a skeleton that has it"
            )
        return self.joints.index(joint)

    def check_num_keypoints(self, num_keypoints: int, what: str) -> None:
        """Checks that keypoints can be those of this skeleton.

        Args:
          num_keypoints: of each pose.
          what: the poses, for the message.

        Raises:
          UserError: the skeleton has another number of joints.
        """
        if num_keypoints != self.num_keypoints:
            raise UserError(
                f"{what} have {num_keypoints} joints, skeleton {self.name!r} has "
                f"{self.num_keypoints}: give the skeleton of the poses"
            )

    def indices_in(self, other: "Skeleton") -> Int[np.ndarray, " k"]:
        """The index of each of our joints in `other`, or -1 if `other` lacks it."""
        return np.array([other.joints.index(j) if j in other.joints else -1 for j in self.joints])


def _mirrored(joint: str) -> str:
    if joint.startswith("left_"):
        return "right_" + joint.removeprefix("left_")
    if joint.startswith("right_"):
        return "left_" + joint.removeprefix("right_")
    return joint
