"""What a set of joints is; the tables are in the modules beside this one.

Flip indices and limbs are derived from joint names, so that a table can only be wrong in one place.
"""

import dataclasses
import functools
import itertools

import numpy as np
from jaxtyping import Float, Int

from rmpe_jax.errors import UserError

UNNAMED = "unnamed_"  # and a number of joints: the name of a skeleton of nameless joints


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A set of joints.

    Attributes:
      name: short name, as used in configs.
      joints: joint names in the order of the data set, spelled `left_*` / `right_*`.
      limbs: pairs of joint names that are drawn as a line.
      oks_sigmas: per joint OKS sigma in COCO's sense (the constant k_i is twice this).
      part_sizes: names and numbers of joints of the parts that the joints are listed in, one after
        the other; empty where all are one body.
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[str, str], ...]
    oks_sigmas: tuple[float, ...]
    part_sizes: tuple[tuple[str, int], ...] = ()

    @property
    def num_keypoints(self) -> int:
        return len(self.joints)

    @functools.cached_property
    def flip_indices(self) -> Int[np.ndarray, " k"]:
        """`keypoints[flip_indices]` swaps left and right.

        Raises:
          UserError: the joints have no names, see `get_skeleton`.
        """
        if self.name.startswith(UNNAMED):
            raise UserError(
                f"skeleton {self.name!r} does not say which joints are left and right: go without "
                "flips, or use a skeleton whose joints have names"
            )
        return np.array([self.index(_mirrored(joint)) for joint in self.joints])

    @functools.cached_property
    def limb_indices(self) -> Int[np.ndarray, "limbs 2"]:
        pairs = [(self.index(a), self.index(b)) for a, b in self.limbs]
        return np.array(pairs, int).reshape(-1, 2)

    @functools.cached_property
    def sigmas(self) -> Float[np.ndarray, " k"]:
        return np.array(self.oks_sigmas)

    @functools.cached_property
    def is_upper_body(self) -> np.ndarray:
        """Boolean (k,): joints above the hips, for half-body augmentation."""
        lower = ("hip", "knee", "ankle", "pelvis", "big_toe", "small_toe", "heel")
        return np.array([not joint.endswith(lower) for joint in self.joints])

    @functools.cached_property
    def parts(self) -> dict[str, slice]:
        """Where each part's joints are: "body", and, as far as they go, "foot", "face", hands."""
        sizes = self.part_sizes or (("body", self.num_keypoints),)
        ends = itertools.accumulate(size for _, size in sizes)
        return {name: slice(end - size, end) for (name, size), end in zip(sizes, ends, strict=True)}

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
