"""The parameters of pose NMS, and the variants of its rule in the paper and the published codes."""

import dataclasses
import json
import math
import os
import pathlib
import typing
from collections.abc import Mapping
from typing import Any, Literal

import flax.struct
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError
from rmpe_jax.skeletons import UNION, Skeleton


@dataclasses.dataclass(frozen=True)
class NmsVariant:
    """The choices of the rule that are not learned.

    Lengths are measured in references. A reference is a fraction, usually a tenth, of the longer
    side of a person's box.

    Attributes:
      region: where a joint of another pose matches: in the `box` around the reference pose's joint,
        whose sides are a tenth of the person box's sides, or in the `disc` of radius one unit.
      unit: the unit of the disc's radius and of the distances in H: a `reference` or a `pixel`.
      squared: whether H decays with the squared distance.
      min_matches: a pose is also redundant if at least this many of its joints lie within one
        reference and within 7 pixels of the other pose's joints. 0 switches this rule off.
      merge: how eliminated poses change the pose that stays. `none`: not at all. `max`: each joint
        moves to the score-weighted mean of the joints within one reference of it, and takes the
        highest score among them. `soft`: the same within at most 15 pixels, but the score is the
        score-weighted mean score.
      person_score: `mean` of the merged joint scores; `box_mean`, that mean times the box score;
        `sum`, mean plus box score plus 1.25 times the highest joint score.
      min_peak: people whose highest joint score is lower are dropped.
      joints: which joints decide whether a pose is redundant. `all`: every joint, with equal
        weight. `body`: COCO's 17 joints, without feet, face and hands. `parts`: means over body
        (with feet), face and hands. Merging always includes all joints.
      reference: the fraction of the box's longer side.
    """

    region: Literal["box", "disc"]
    unit: Literal["reference", "pixel"]
    squared: bool
    min_matches: int
    merge: Literal["none", "max", "soft"]
    person_score: Literal["mean", "box_mean", "sum"]
    min_peak: float
    joints: Literal["all", "body", "parts"] = "all"
    reference: float = 0.1

    def __post_init__(self):
        _check_choices(vars(self))


def _check_choices(values: Mapping[str, Any]) -> None:
    """Raise a UserError if a value of `NmsVariant` is not one of its choices."""
    for name, hint in typing.get_type_hints(NmsVariant).items():
        choices = typing.get_args(hint)
        if choices and name in values and values[name] not in choices:
            raise UserError(f"pose NMS: {name} is not one of {', '.join(choices)}: change it")


@flax.struct.dataclass
class PoseNmsParams:
    """The parameters of pose NMS: a pytree of four numbers, with the variant as static data.

    d(i, j) = K(i, j | sigma1) + lam * H(i, j | sigma2). Pose j is redundant with the more confident
    pose i if d > eta (Fang et al., ICCV 2017, equations 8 to 10; the paper prints the inequality
    the other way round, although d is a similarity).

    Attributes:
      sigma1: joint scores well above it count fully in K.
      sigma2: decay length of H in the variant's unit, squared if `variant.squared`.
      lam: weight of H.
      eta: threshold. Identical poses of k joints with high scores have d = k (1 + lam).
      variant: the choices of the rule that are not learned.
    """

    sigma1: float | Float[Array, "*p"]
    sigma2: float | Float[Array, "*p"]
    lam: float | Float[Array, "*p"]
    eta: float | Float[Array, "*p"]
    variant: NmsVariant = flax.struct.field(pytree_node=False)

    @staticmethod
    def preset(name: str) -> "PoseNmsParams":
        """The preset called `name`.

        * `paper`: equations 8 to 10. The paper gives no constants, no unit of distance and no
          person score: the constants are those of the released code, the unit is the reference,
          and the score is our choice.
        * `rmpe`: the code released with the paper (Torch7 and Caffe).
        * `alphapose`: AlphaPose 0.6, body models.
        * `rmpe_body`: `rmpe` on COCO's 17 joints, for networks with more joints, because the
          threshold is meant for about 17. Feet, face and hands are kept or eliminated with them.
        * `alphapose_whole_body`: AlphaPose 0.6's constants for 133 and 136 joints. How the factors
          of the parts combine is our interpretation (docs/pose_nms.md).

        Raises:
          UserError: there is no such preset.
        """
        if name not in _PRESETS:
            raise UserError(f"pose NMS has no preset {name!r}: use one of {', '.join(_PRESETS)}")
        return _PRESETS[name]

    @staticmethod
    def default(skeleton: Skeleton) -> "PoseNmsParams":
        """AlphaPose's rule; for skeletons with feet, face or hands, the body alone decides."""
        params = _PRESETS["alphapose"]
        # The union is the largest skeleton of bodies alone.
        if skeleton.num_keypoints <= UNION.num_keypoints:
            return params
        variant = dataclasses.replace(params.variant, joints="body")
        return dataclasses.replace(params, variant=variant)


_PRESETS = {
    "paper": PoseNmsParams(
        sigma1=0.01,
        sigma2=2.08,
        lam=2.08,
        eta=22.48,
        variant=NmsVariant("box", "reference", True, 0, "none", "box_mean", 0.0),
    ),
    "rmpe": PoseNmsParams(
        sigma1=0.01,
        sigma2=2.08,
        lam=2.08,
        eta=22.48,
        variant=NmsVariant("disc", "reference", False, 0, "max", "mean", 0.0),
    ),
    "alphapose": PoseNmsParams(
        sigma1=1.0,
        sigma2=2.65,
        lam=1.7,
        eta=22.48,
        variant=NmsVariant("disc", "pixel", False, 5, "soft", "sum", 0.3),
    ),
    "rmpe_body": PoseNmsParams(
        sigma1=0.01,
        sigma2=2.08,
        lam=2.08,
        eta=22.48,
        variant=NmsVariant("disc", "reference", False, 0, "max", "mean", 0.0, joints="body"),
    ),
    "alphapose_whole_body": PoseNmsParams(
        sigma1=1.0,
        sigma2=8.0,
        lam=1.65,
        eta=3.6,
        variant=NmsVariant(
            "disc", "pixel", False, 3, "soft", "sum", 0.01, joints="parts", reference=0.15
        ),
    ),
}


def params_to_dict(params: PoseNmsParams) -> dict[str, Any]:
    """The parameters as JSON types, for `params_from_dict`."""
    numbers = {name: float(getattr(params, name)) for name in ("sigma1", "sigma2", "lam", "eta")}
    return numbers | {"variant": dataclasses.asdict(params.variant)}


def params_from_dict(content: Any) -> PoseNmsParams:
    """Read what `params_to_dict` wrote, as JSON types; older files call the variant "form".

    Raises:
      UserError: the content is something else.
    """
    try:
        choices = content["variant" if "variant" in content else "form"]
        _check_choices(choices)
        variant = NmsVariant(**_typed(choices))
        numbers = {name: float(content[name]) for name in ("sigma1", "sigma2", "lam", "eta")}
    except (KeyError, OverflowError, TypeError, ValueError):
        raise UserError(
            "pose NMS parameters need sigma1, sigma2, lam, eta and variant: use a file that "
            "rmpe fit-nms wrote"
        ) from None
    positive = (*numbers.values(), variant.reference)
    if not all(math.isfinite(value) and value > 0 for value in positive):
        raise UserError("pose NMS parameters must be positive numbers: change them")
    if variant.min_matches < 0 or not 0 <= variant.min_peak < math.inf:
        raise UserError("pose NMS: min_matches and min_peak are 0 or more: change them")
    return PoseNmsParams(**numbers, variant=variant)


def _typed(choices: Mapping[str, Any]) -> dict[str, Any]:
    """Values of `NmsVariant` as their types: whole numbers are floats too.

    Raises:
      TypeError, ValueError, OverflowError: one has another type.
    """
    typed = dict(choices)
    for name, hint in typing.get_type_hints(NmsVariant).items():
        if hint is float and name in typed:
            typed[name] = float(typed[name])
        elif hint in (bool, int) and type(typed.get(name)) is not hint:
            raise TypeError(name)
    return typed


def load_params(source: str | os.PathLike) -> PoseNmsParams:
    """Load a preset by its name, or a file that `rmpe fit-nms` wrote.

    Raises:
      UserError: `source` is neither.
    """
    if str(source) in _PRESETS:
        return PoseNmsParams.preset(str(source))
    try:
        content = json.loads(pathlib.Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"pose NMS parameters {source} cannot be read ({error.strerror}): give a file that "
            f"rmpe fit-nms wrote, or one of {', '.join(_PRESETS)}"
        ) from None
    except (RecursionError, ValueError):
        raise UserError(f"pose NMS parameters {source} are not JSON: give a valid file") from None
    try:
        return params_from_dict(content)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
