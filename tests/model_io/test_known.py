"""What `rmpe models` says about published weights is true of our networks."""

import pathlib
import re
import runpy

import jax
import pytest

from rmpe_jax import cli
from rmpe_jax.interop.hub import is_hub_name
from rmpe_jax.model_io.known import KNOWN_MODELS, list_known
from rmpe_jax.models import SPPE_NAMES, build_sppe

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs/models.md"
CHEAP = (
    "movenet_lightning",
    "vitpose_b",
    "vitpose_plus_s",
    "simplepose_res50",
    "fastpose_res50",
    "rtmpose_m",
)


def parameters(network: str, num_keypoints: int = 17) -> int:
    """The number of parameters; nothing is computed."""
    images = jax.ShapeDtypeStruct((1, 256, 192, 3), "float32")
    module = build_sppe(network, num_keypoints)
    variables = jax.eval_shape(module.init, jax.random.key(0), images)
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize("network", CHEAP)
def test_numbers_of_parameters(network):
    """Those that are listed, and that of the page."""
    count = parameters(network)
    assert {m.parameters for m in KNOWN_MODELS if m.network == network} == {count}
    assert f"\n| `{network}` | {count / 1e6:.1f} |" in PAGE.read_text(encoding="utf-8")


def test_the_page_has_all_networks():
    rows = re.findall(r"^\| `(\w+)` \| [\d.]+ \| [\d.]+ \|", PAGE.read_text(encoding="utf-8"), re.M)
    assert sorted(rows) == sorted(SPPE_NAMES)


@pytest.mark.parametrize("network", ["tinypose_s", "vitpose_s_simple", "vitpose_plus_s"])
def test_flops_of_the_page(network):
    count = runpy.run_path(str(ROOT / "benchmarks/networks.py"))["cost"](network)
    row = f"\n| `{network}` | {count['parameters'] / 1e6:.1f} | {count['gflops']:.1f} |"
    assert row in PAGE.read_text(encoding="utf-8")


def test_the_page_and_the_list_agree():
    """Every AP with weights is in both, from the same source, with the same weights."""
    page = PAGE.read_text(encoding="utf-8")
    cells = r"^\| `(\w+)` \| [\d.]+ \| [\d.]+ \| ([^|]*) \| ([^|]+) \| [^|]* \|$"
    rows = {network: rest for network, *rest in re.findall(cells, page, re.M)}
    assert {m.network for m in KNOWN_MODELS} <= rows.keys()
    for model in KNOWN_MODELS:
        ap, weights = rows[model.network]
        letter = {"alphapose": "A", "mmpose": "M", "builtin": "B", "builtin-small": "B"}.get(
            model.name.split("/")[0], "V"
        )
        figures = dict((s, n) for n, s in re.findall(r"([\d., ]*\d) \((\w)\)", ap))
        assert f"{model.ap:.1f}" in figures[letter].split(", ")
        words = model.command.split()
        assert f"`{model.name}`" in page or f"`convert {words[2]}`" in weights
    for network, (ap, weights) in rows.items():
        for figure, letter in re.findall(r"(\d\d\.\d)(?:, [\d.]+)? \((\w)\)", ap):
            if weights.strip() and letter in "ABMV":
                assert float(figure) in {m.ap for m in KNOWN_MODELS if m.network == network}


def test_known_models_are_ours_and_their_commands_valid():
    assert len({model.name for model in KNOWN_MODELS}) == len(KNOWN_MODELS)
    for model in KNOWN_MODELS:
        assert model.network in SPPE_NAMES
        assert (
            model.name in ("builtin", "builtin-small")
            or is_hub_name(model.name)
            or "/" in model.name
        )
        cli.make_parser().parse_args(model.command.split()[1:])


def test_the_list(capsys):
    assert cli.main(["models"]) == 0
    output = capsys.readouterr().out
    assert output == list_known() + "\n"
    head, *rows = output.splitlines()[: len(KNOWN_MODELS) + 1]
    for model, row in zip(KNOWN_MODELS, rows, strict=True):
        assert row.startswith(f"{model.name} ")
        assert row[head.index("license") :].startswith(model.license)
        assert row[head.index("command") :] == model.command


def test_one_entry_in_full(capsys):
    assert cli.main(["models", "hf:usyd-community/vitpose-plus-base"]) == 0
    output = capsys.readouterr().out
    assert "vitpose_plus_b, 125,395,473 parameters" in output
    assert "77.0" in output
    assert "ViTPose's README" in output
    assert cli.main(["models", "simplepose_res50"]) == 0
    output = capsys.readouterr().out
    assert output.startswith("alphapose/simplepose_res50\n")
    assert "\n\nmmpose/simplepose_res50\n" in output


def test_an_unknown_name_is_one_line(capsys):
    assert cli.main(["models", "vitpose-plus-bas"]) == 1
    assert capsys.readouterr().err == (
        "rmpe: no weights of 'vitpose-plus-bas' are known: did you mean "
        "'hf:usyd-community/vitpose-plus-base'?\n"
    )
    assert cli.main(["models", "vitpose_g"]) == 1
    assert "did you mean 'vitpose/vitpose_" in capsys.readouterr().err
    assert cli.main(["models", "yolo"]) == 1
    assert capsys.readouterr().err == (
        "rmpe: no weights of 'yolo' are known: rmpe models lists those that are\n"
    )


def test_vitpose_of_the_papers_code(capsys):
    assert cli.main(["models", "vitpose_h"]) == 0
    output = capsys.readouterr().out
    assert "79.1" in output
    assert "rmpe convert vitpose FILE.pth --out vitpose_h.safetensors" in output
