"""The parameters of pose NMS, and the forms of its rule in the paper and in the published codes."""

import dataclasses
import json
import math
import os
import pathlib
from typing import Any, Literal

import flax.struct
from jaxtyping import Array, Float

from rmpe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Form:
    """The parts of the rule that are not numbers to be learned.

    Lengths are in units of the reference: a tenth, or another share, of the longer side of a
    person's box.

    Attributes:
      region: where another pose's joint matches softly: in the `box` around the reference's joint
        whose sides are a tenth of the person's box's, or in the `disc` of radius one unit.
      unit: of the disc and of the spatial term: the `reference`, or a `pixel`.
      squared: the spatial term decays with the squared distance.
      min_matches: a pose is redundant too if so many of its joints lie within a reference and 7
        pixels of the other's; 0: there is no such rule.
      merge: what becomes of the poses that are eliminated. `none`: nothing. `max`: each joint
        becomes the mean, weighted by score, of those within a reference of it; its score is the
        greatest. `soft`: likewise, within 15 pixels at most; its score is the weighted mean score.
      person_score: `mean` of the merged joint scores; `box_mean`: that times the box's score;
        `sum`: mean plus box's score plus 1.25 times the greatest.
      min_peak: people whose best joint scores less are dropped.
      joints: which joints decide what is redundant: `all`, each counted alike; the `body`, the
        first 17 of COCO and of those sets that begin with them; or `parts`, means over body, face
        and hands, for sets that end with the 68 joints of a face and the 42 of hands. All joints
        are merged in any case.
      reference: the share of a box's longer side that the reference is.
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
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise UserError(f"pose NMS: {name} is not one of {', '.join(choices)}: change it")


_CHOICES = {
    "region": ("box", "disc"),
    "unit": ("reference", "pixel"),
    "merge": ("none", "max", "soft"),
    "person_score": ("mean", "box_mean", "sum"),
    "joints": ("all", "body", "parts"),
}
_FEW_JOINTS = 21  # of bodies and their union; sets with more have feet, faces or hands


@flax.struct.dataclass
class PoseNmsParams:
    """What pose NMS decides by; a pytree of four numbers, with the form as static data.

    d(i, j) = K(i, j | sigma1) + lam * H(i, j | sigma2); pose j is redundant with the more confident
    pose i if d > eta (Fang et al., ICCV 2017, equations 8 to 10, where the inequality is printed
    the other way round though d is a similarity).

    Attributes:
      sigma1: joint scores well above it count fully in K.
      sigma2: how far H reaches, in the unit of the form (squared, where the form squares).
      lam: weight of H.
      eta: threshold; identical poses of k sure joints have d = k (1 + lam).
      form: the rest of the rule.
    """

    sigma1: float | Float[Array, "*p"]
    sigma2: float | Float[Array, "*p"]
    lam: float | Float[Array, "*p"]
    eta: float | Float[Array, "*p"]
    form: Form = flax.struct.field(pytree_node=False)

    @staticmethod
    def preset(name: str) -> "PoseNmsParams":
        """One of these, by its name.

        * `paper`: equations 8 to 10. They come without constants, without a unit of distance and
          without a person's score: these are the release's, the reference, and ours.
        * `rmpe`: the code released with the paper (Torch7 and Caffe).
        * `alphapose`: AlphaPose 0.6, body models.
        * `rmpe_body`: the release's rule on COCO's 17 joints, for networks that have more: its
          threshold is that of about so many. Feet, face and hands go with their body.
        * `alphapose_whole_body`: AlphaPose 0.6's constants for 133 and 136 joints; how the factors
          of the parts come together is our reading of them (docs/pose_nms.md).

        Raises:
          UserError: there is no such preset.
        """
        if name not in _PRESETS:
            raise UserError(f"pose NMS has no preset {name!r}: use one of {', '.join(_PRESETS)}")
        return _PRESETS[name]

    @staticmethod
    def default(num_keypoints: int) -> "PoseNmsParams":
        """AlphaPose's rule, decided by the body alone where there are feet, faces or hands too."""
        params = _PRESETS["alphapose"]
        if num_keypoints <= _FEW_JOINTS:
            return params
        return dataclasses.replace(params, form=dataclasses.replace(params.form, joints="body"))


_PRESETS = {
    "paper": PoseNmsParams(
        sigma1=0.01,
        sigma2=2.08,
        lam=2.08,
        eta=22.48,
        form=Form("box", "reference", True, 0, "none", "box_mean", 0.0),
    ),
    "rmpe": PoseNmsParams(
        sigma1=0.01,
        sigma2=2.08,
        lam=2.08,
        eta=22.48,
        form=Form("disc", "reference", False, 0, "max", "mean", 0.0),
    ),
    "alphapose": PoseNmsParams(
        sigma1=1.0,
        sigma2=2.65,
        lam=1.7,
        eta=22.48,
        form=Form("disc", "pixel", False, 5, "soft", "sum", 0.3),
    ),
    "rmpe_body": PoseNmsParams(
        sigma1=0.01,
        sigma2=2.08,
        lam=2.08,
        eta=22.48,
        form=Form("disc", "reference", False, 0, "max", "mean", 0.0, joints="body"),
    ),
    "alphapose_whole_body": PoseNmsParams(
        sigma1=1.0,
        sigma2=8.0,
        lam=1.65,
        eta=3.6,
        form=Form("disc", "pixel", False, 3, "soft", "sum", 0.01, joints="parts", reference=0.15),
    ),
}


def params_to_dict(params: PoseNmsParams) -> dict[str, Any]:
    """For JSON; `params_from_dict` reads it."""
    numbers = {name: float(getattr(params, name)) for name in ("sigma1", "sigma2", "lam", "eta")}
    return numbers | {"form": dataclasses.asdict(params.form)}


def params_from_dict(content: dict[str, Any]) -> PoseNmsParams:
    """What `params_to_dict` wrote.

    Raises:
      UserError: it is something else.
    """
    try:
        form = Form(**content["form"])
        numbers = {name: float(content[name]) for name in ("sigma1", "sigma2", "lam", "eta")}
    except (KeyError, TypeError, ValueError):
        raise UserError(
            "pose NMS parameters need sigma1, sigma2, lam, eta and form: take what rmpe fit-nms "
            "wrote"
        ) from None
    if not all(math.isfinite(value) and value > 0 for value in numbers.values()):
        raise UserError("pose NMS parameters must be positive numbers: mend them")
    return PoseNmsParams(**numbers, form=form)


def load_params(source: str | os.PathLike) -> PoseNmsParams:
    """A preset by its name, or the file that `rmpe fit-nms` wrote.

    Raises:
      UserError: it is neither.
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
    except ValueError:
        raise UserError(f"pose NMS parameters {source} are not JSON: give a valid file") from None
    try:
        return params_from_dict(content)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
