"""What the subcommands' arguments have in common: their help, and kinds of values."""

import argparse
import re
from collections.abc import Sequence


def add_command(
    commands: argparse._SubParsersAction, name: str, summary: str, description: str, examples: str
) -> argparse.ArgumentParser:
    """The parser of a new subcommand, whose help keeps the lines of its texts."""
    return commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def with_dashes(argv: Sequence[str]) -> list[str]:
    """The arguments with `--flip_test` written as `--flip-test`; both are accepted."""
    return [re.sub(r"^--[^=]+", lambda name: name[0].replace("_", "-"), text) for text in argv]


def whole(text: str) -> int:
    """A whole number from 0."""
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def positive(text: str) -> int:
    """A whole number from 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def share(text: str) -> float:
    """A number between 0 and 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share


def size(text: str) -> tuple[int, int]:
    """(height, width) of `HEIGHTxWIDTH`."""
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x192")
    return int(match[1]), int(match[2])
