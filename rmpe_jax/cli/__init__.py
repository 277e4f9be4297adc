"""The `rmpe` command: one thin function for each subcommand, with its imports inside."""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence

from rmpe_jax.cli import learn, models, predict, prepare
from rmpe_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; 0 if all went well, 1 after a line on stderr that says what did not."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax says much
    args = _parser().parse_args(argv)
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
    prepare.add_prepare(commands)
    learn.add_fit_nms(commands)
    learn.add_fit_pgpg(commands)
    learn.add_ablate(commands)
    models.add_convert(commands)
    models.add_export(commands)
    return parser
