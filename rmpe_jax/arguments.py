"""What the command lines have in common: the parser, old names of options, kinds of values."""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line on stderr; the exit status is 2."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with one line."""
        self.exit(2, f"{self.prog}: {message}; {self.prog} --help shows the options\n")


def add_command(
    commands: argparse._SubParsersAction, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """A parser for a new subcommand; its help keeps the line breaks of the texts."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(parser=parser)
    return parser


def present_names(argv: Sequence[str], renamed: Mapping[str, str]) -> list[str]:
    """The arguments with the present names of options; prints one line per old name.

    `--flip_test` becomes `--flip-test` without a message: both are accepted.

    Args:
      argv: the arguments.
      renamed: old names of options and their new names, such as {"--batch": "--batch-size"}.
    """
    present = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if name.startswith("--"):
            name = name.replace("_", "-")
        if name in renamed:
            warn_renamed(name, renamed[name])
            name = renamed[name]
        present.append(name + equals + value)
    return present


def warn_renamed(old: str, new: str) -> None:
    """Prints one line on stderr that gives the new name."""
    print(f"{old} is now called {new}; the old name still works", file=sys.stderr)


def non_negative_int(text: str) -> int:
    """An integer of at least 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 0")
    return int(text)


def positive_int(text: str) -> int:
    """An integer of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 1")
    return int(text)


def two_or_more(text: str) -> int:
    """An integer of at least 2."""
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least 2")
    return int(text)


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1")
    return value


def image_size(text: str) -> tuple[int, int]:
    """(height, width) from `HEIGHTxWIDTH`."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x192")
    return int(match[1]), int(match[2])
