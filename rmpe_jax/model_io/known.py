"""Published weights that work here: what they are, their accuracy, and the command to use them."""

import dataclasses
import difflib

from rmpe_jax.errors import UserError

_HUB = "hf:usyd-community/"
_VITPOSE = "ViTPose's README, of its authors' files: COCO val2017, a detector of 56 AP, flip test"
_MMPOSE = "MMPose's model zoo: COCO val2017, a detector of 56.4 AP, flip test"
_CARD = "docs/model_card.md: 142 images of COCO val2017, ground-truth boxes, flip test"
_ALPHAPOSE = "AlphaPose's model zoo: COCO val2017, YOLOv3's boxes, flip test"


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """A trained network that is published somewhere.

    Attributes:
      name: what `--model` takes: "builtin", "builtin-small" or an "hf:" name. Of files that have to
        be converted, the project and our name of the network, such as "mmpose/hrnet_w32".
      network: our name of the network, one of `models.SPPE_NAMES`.
      joints: their number.
      parameters: their number.
      license: of the weights, as their publisher states it; terms of the training data come on top.
      ap: average precision in percent, as published.
      source: who published the AP, and how it was measured.
      command: how to use the weights.
    """

    name: str
    network: str
    joints: int
    parameters: int
    license: str
    ap: float
    source: str
    command: str


def _builtin(name: str, network: str, parameters: int, ap: float) -> KnownModel:
    command = f"rmpe predict photo.jpg --model={name}"
    return KnownModel(name, network, 17, parameters, "Apache-2.0", ap, _CARD, command)


def _on_hub(repository: str, network: str, parameters: int, ap: float) -> KnownModel:
    name = f"{_HUB}{repository}"
    command = f"rmpe predict photo.jpg --model={name}"
    return KnownModel(name, network, 17, parameters, "Apache-2.0", ap, _VITPOSE, command)


def _file(
    project: str, network: str, parameters: int, ap: float, file: str = "FILE.pth"
) -> KnownModel:
    license, source = {
        "alphapose": ("non-commercial", _ALPHAPOSE),
        "mmpose": ("Apache-2.0", _MMPOSE),
        "vitpose": ("Apache-2.0", _VITPOSE),
    }[project]
    command = f"rmpe convert {project} {file} --out {network}.safetensors"
    name = f"{project}/{network}"
    return KnownModel(name, network, 17, parameters, license, ap, source, command)


def _rtmpose(size: str, parameters: int, ap: float, name: str, digest: str) -> KnownModel:
    file = f"rtmpose-{name}_simcc-coco_pt-aic-coco_420e-256x192-{digest}_20230127.pth"
    return _file("mmpose", f"rtmpose_{size}", parameters, ap, file)


KNOWN_MODELS = (
    _builtin("builtin", "movenet_thunder", 6_240_753, 52.4),
    _builtin("builtin-small", "movenet_lightning", 2_320_849, 44.7),
    _on_hub("vitpose-base-simple", "vitpose_b_simple", 85_912_337, 75.5),
    _on_hub("vitpose-base", "vitpose_b", 89_994_513, 75.8),
    _on_hub("vitpose-base-coco-aic-mpii", "vitpose_b", 89_994_513, 77.1),
    _on_hub("vitpose-plus-small", "vitpose_plus_s", 33_143_697, 75.8),
    _on_hub("vitpose-plus-base", "vitpose_plus_b", 125_395_473, 77.0),
    _on_hub("vitpose-plus-large", "vitpose_plus_l", 434_404_625, 78.6),
    _on_hub("vitpose-plus-huge", "vitpose_plus_h", 899_404_049, 79.4),
    _file("vitpose", "vitpose_s_simple", 21_722_513, 73.5),
    _file("vitpose", "vitpose_s", 24_290_577, 73.8),
    _file("vitpose", "vitpose_b_simple", 85_912_337, 75.5),
    _file("vitpose", "vitpose_b", 89_994_513, 75.8),
    _file("vitpose", "vitpose_l_simple", 303_453_201, 78.2),
    _file("vitpose", "vitpose_l", 308_544_785, 78.3),
    _file("vitpose", "vitpose_h_simple", 631_107_857, 78.9),
    _file("vitpose", "vitpose_h", 637_208_849, 79.1),
    _file("alphapose", "simplepose_res50", 33_999_697, 70.6),
    _file("alphapose", "fastpose_res50", 40_577_745, 72.0, "fast_res50_256x192.pth"),
    _file("alphapose", "fastpose_duc_res50_shuffle", 57_853_777, 72.4),
    _file("alphapose", "hrnet_w32", 28_536_113, 72.5),
    _file(
        "mmpose", "simplepose_res50", 33_999_697, 71.8, "res50_coco_256x192-ec54d7f3_20200709.pth"
    ),
    _file(
        "mmpose", "simplepose_res101", 52_991_825, 72.6, "res101_coco_256x192-6e6babf0_20200708.pth"
    ),
    _file(
        "mmpose", "simplepose_res152", 68_635_473, 73.5, "res152_coco_256x192-f6e307c2_20200709.pth"
    ),
    _file(
        "mmpose",
        "hrnet_w32",
        28_536_113,
        74.9,
        "td-hm_hrnet-w32_8xb64-210e_coco-256x192-81c58e40_20220909.pth",
    ),
    _file(
        "mmpose",
        "hrnet_w48",
        63_595_745,
        75.6,
        "td-hm_hrnet-w48_8xb32-210e_coco-256x192-0e67c616_20220913.pth",
    ),
    _rtmpose("t", 3_337_007, 68.2, "tiny", "e613ba3f"),
    _rtmpose("s", 5_473_251, 71.6, "s", "8edcf0d7"),
    _rtmpose("m", 13_587_611, 74.6, "m", "d8dd5ca4"),
    _rtmpose("l", 27_660_339, 75.8, "l", "1352a4d2"),
)


def list_known() -> str:
    """The table that `rmpe models` prints."""
    rows = [("name", "joints", "parameters", "AP", "license", "command")]
    for model in KNOWN_MODELS:
        numbers = (str(model.joints), _millions(model.parameters), f"{model.ap:.1f}")
        rows.append((model.name, *numbers, model.license, model.command))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if i in (1, 2, 3) else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    notes = (
        "AP is as published; only those of builtin and builtin-small were measured here. "
        "rmpe models NAME: source."
    )
    return "\n".join([*lines, "", notes])


def describe(name: str) -> str:
    """All that is known of the weights with a name, or of those of a network.

    Raises:
      UserError: no such weights are known.
    """
    found = [model for model in KNOWN_MODELS if name in (model.name, model.network)]
    if not found:
        names = [model.name for model in KNOWN_MODELS]
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else "rmpe models lists those that are"
        raise UserError(f"no weights of {name!r} are known: {hint}")
    return "\n\n".join(map(_describe, found))


def _describe(model: KnownModel) -> str:
    return f"""\
{model.name}
  network     {model.network}, {model.parameters:,} parameters, {model.joints} joints
  license     {model.license} (the weights; training data has terms of its own)
  AP          {model.ap:.1f}
  source      {model.source}
  command     {model.command}"""


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} M"
