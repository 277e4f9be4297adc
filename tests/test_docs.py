"""The commands in README and docs are valid, and the Python code of the README runs."""

import pathlib
import re
import shlex

import pytest

from rmpe_jax import arguments, cli
from rmpe_jax.config import default_config

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
# Commands with absl flags, and where they are defined.
ABSL_COMMANDS = {
    ("rmpe", "train"): "rmpe_jax/cli/train.py",
    ("rmpe", "eval"): "rmpe_jax/cli/evaluate.py",
    ("python", "train.py"): "rmpe_jax/cli/train.py",
    ("python", "eval.py"): "rmpe_jax/cli/evaluate.py",
}
SHARED_FLAGS = "rmpe_jax/cli/process_flags.py"  # of all these commands


def blocks(page: pathlib.Path) -> list[tuple[str, str]]:
    """Language and text of the fenced blocks of a page."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def commands(page: pathlib.Path) -> list[list[str]]:
    """The words of each command in the blocks of a page: lines joined, comments dropped."""
    text = "\n".join(text for language, text in blocks(page) if language in ("", "sh", "bash"))
    lines = text.replace("\\\n", " ").splitlines()
    found = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines if line.strip()]
    return [words for words in found if words[:1] in (["rmpe"], ["python"])]


COMMANDS = [
    pytest.param(words, id=f"{page.stem}-{' '.join(words)[:60]}")
    for page in PAGES
    for words in commands(page)
]


def absl_flags(script: str) -> set[str]:
    """The flags that a script defines with absl."""
    text = (ROOT / script).read_text(encoding="utf-8")
    return set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", text))


def argparse_options(script: str) -> set[str]:
    """The options that a script defines with argparse, with underscores."""
    text = (ROOT / script).read_text(encoding="utf-8")
    return {name.replace("-", "_") for name in re.findall(r"\"--([\w-]+)\"", text)}


def check_flags(argv: list[str], known: set[str]) -> None:
    """Fails if a flag is unknown, a config file is missing, or a config key does not exist."""
    for argument in argv:
        if not argument.startswith("--"):
            continue
        name, _, value = argument[2:].partition("=")
        if name.startswith("config."):
            node = default_config()
            for key in name.split(".")[1:]:
                assert key in node, argument
                node = node[key]
        else:
            assert name.replace("-", "_") in known, argument
        path = value.partition(":")[0]
        if name == "config" and path != "…":
            assert (ROOT / path).is_file(), argument


def check_command(words: list[str]) -> None:
    """Fails if a command is not valid."""
    if tuple(words[:2]) in ABSL_COMMANDS:
        script = ABSL_COMMANDS[tuple(words[:2])]
        check_flags(words[2:], absl_flags(script) | absl_flags(SHARED_FLAGS))
    elif words[0] == "rmpe":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(arguments.Parser, "error", lambda _, message: pytest.fail(message))
            cli.make_parser().parse_args(words[1:])
    elif words[1] == "-m":
        check_flags(words[3:], argparse_options(words[2].replace(".", "/") + ".py"))
    else:
        check_flags(words[2:], argparse_options(words[1]))


def test_there_are_commands():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("words", COMMANDS)
def test_commands_are_valid(words):
    check_command(words)


@pytest.mark.parametrize(
    "command",
    [
        "rmpe train --config=configs/synthetic.py --workdri=x",
        "rmpe train --config=configs/none.py --workdir=x",
        "rmpe train --config=configs/synthetic.py --workdir=x --config.codec.integer_centre=True",
        "rmpe eval --model=x --data=coco:x --flip",
        "python eval.py --config=configs/synthetic.py --workdir=x --config.model.nam=x",
        "python -m rmpe_jax.experiments.demo --output=x",
        "rmpe predict photo.jpg --boxes",
    ],
)
def test_invalid_commands_are_found(command):
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check_command(command.split())


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [text for language, text in blocks(PAGES[0]) if language == "python"]
)
def test_readme_runs(code):
    exec(compile(code, "README.md", "exec"), {})
