"""The `rmpe` command: one thin function for each subcommand, with its imports inside."""

import argparse
import importlib
import logging
import signal
import sys
from collections.abc import Sequence

from rmpe_jax.cli import learn, models, predict, prepare
from rmpe_jax.cli.arguments import with_dashes
from rmpe_jax.errors import UserError

# Subcommands whose flags are absl's, since --config.KEY=VALUE is: their module and summary.
_BY_ABSL = {
    "train": ("rmpe_jax.cli.train", "train a network by a config"),
    "eval": ("rmpe_jax.cli.evaluate", "score a trained network on a dataset"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 if all went well, 1 after a line on stderr that says what did not."""
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in _BY_ABSL:
        sys.argv = [f"rmpe {argv[0]}", *argv[1:]]
        importlib.import_module(_BY_ABSL[argv[0]][0]).main()  # ends the program
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs a lot
    args = _parser().parse_args(with_dashes(argv))
    # Terminated, it unwinds like an interrupted one, so that what is half done is cleaned up.
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        args.run(args)
    except UserError as error:
        print(f"rmpe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("rmpe: stopped", file=sys.stderr)
        return 130
    finally:
        signal.signal(signal.SIGTERM, previous)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="rmpe", description="RMPE pose estimation.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict.add_predict(commands)
    for name, (_, summary) in _BY_ABSL.items():
        commands.add_parser(name, help=summary)
    prepare.add_prepare(commands)
    learn.add_fit_nms(commands)
    learn.add_fit_pgpg(commands)
    learn.add_ablate(commands)
    models.add_convert(commands)
    models.add_export(commands)
    return parser
