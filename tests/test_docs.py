"""What README and docs tell people to type: it must be there to be typed."""

import pathlib
import re
import shlex

import pytest

from rmpe_jax import cli
from rmpe_jax.config import default_config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def blocks(page: pathlib.Path) -> list[tuple[str, str]]:
    """Language and text of a page's fenced blocks."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: pathlib.Path) -> list[list[str]]:
    """The words of each command in a page's blocks, continued lines joined, comments left out."""
    text = "\n".join(text for language, text in blocks(page) if language in ("", "sh", "bash"))
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.strip()]
    return [words for words in found if words[:1] in (["rmpe"], ["python"])]


# `rmpe train` and `python train.py` are the same, and so are the two forms of eval.
BY_ABSL = {"train": "rmpe_jax/cli/train.py", "eval": "rmpe_jax/cli/evaluate.py"}

COMMANDS = [
    pytest.param(words, id=f"{page.stem}-{' '.join(words)[:60]}")
    for page in PAGES
    for words in commands(page)
]


def flags_of(script: str) -> set[str]:
    """The flags that a script of absl defines."""
    text = (ROOT / script).read_text(encoding="utf-8")
    return set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))


def options_of(script: str) -> set[str]:
    """The options that a script of argparse defines."""
    text = (ROOT / script).read_text(encoding="utf-8")
    return {name.replace("-", "_") for name in re.findall(r"\"--([\w-]+)\"", text)}


def test_there_are_commands():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_is_one(words):
    if words[0] == "rmpe" and words[1] not in BY_ABSL:
        cli.make_parser().parse_args(words[1:])  # exits if an argument is wrong
        return
    script, *arguments = words[1:]
    if script == "-m":
        script, *arguments = arguments
        script = script.replace(".", "/") + ".py"
    script = BY_ABSL.get(script.removesuffix(".py"), script)
    known = flags_of(script) | options_of(script)
    for argument in arguments:
        if not argument.startswith("--"):
            continue
        name, _, value = argument[2:].partition("=")
        name = name.replace("-", "_")
        if name.startswith("config."):
            node = default_config()
            for key in name.split(".")[1:]:
                node = node[key]
        else:
            assert name in known
        path = value.partition(":")[0]
        if name == "config" and path != "…":
            assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    "code", [text for language, text in blocks(PAGES[0]) if language == "python"]
)
def test_readme_runs(code):
    exec(compile(code, "README.md", "exec"), {})
