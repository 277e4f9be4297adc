"""The `rmpe` command. Each subcommand imports what it needs only when it runs."""

import argparse
import gc
import importlib
import logging
import signal
import sys
from collections.abc import Mapping, Sequence

from rmpe_jax import arguments
from rmpe_jax.cli import label, learn, models, predict, prepare, tracks
from rmpe_jax.errors import UserError

# Subcommands with absl flags, which --config.KEY=VALUE needs: their module and summary.
_ABSL_COMMANDS = {
    "train": ("rmpe_jax.cli.train", "train a pose network or detector from a config"),
    "eval": ("rmpe_jax.cli.evaluate", "evaluate a trained pose network or detector on a dataset"),
}
# Imports and traces make millions of objects that stay. With Python's default the collector looks
# through them so often that a prediction of one photo takes a fifth more of the processor.
_GC_THRESHOLD = 5000
# By subcommand: old names of options, which are still accepted, and their new names.
_RENAMED: dict[str, Mapping[str, str]] = {
    "predict": {"--boxes": "--draw-boxes", "--batch": "--batch-size"},
    "export": {"--to": "--format"},
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one subcommand.

    Returns:
      The exit status: 0, or 1 after an error, which is one line on stderr. `rmpe train`,
      `rmpe eval`, `--help` and invalid arguments raise `SystemExit` instead.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    command = argv[0] if argv else ""
    threshold = gc.get_threshold()
    gc.set_threshold(_GC_THRESHOLD)
    if command in _ABSL_COMMANDS:
        sys.argv = [f"rmpe {command}", *argv[1:]]
        importlib.import_module(_ABSL_COMMANDS[command][0]).main()  # exits
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.ERROR)  # Orbax logs a lot
    argv = arguments.present_names(argv, _RENAMED.get(command, {}))
    args, unknown = make_parser().parse_known_args(argv)
    if unknown:
        args.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    # SIGTERM raises KeyboardInterrupt too, so that unfinished files are cleaned up.
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
        gc.set_threshold(*threshold)
    return 0


def make_parser() -> argparse.ArgumentParser:
    """The parser of all subcommands; of `train` and `eval` it knows only the names."""
    parser = arguments.Parser(prog="rmpe", description="RMPE pose estimation.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    predict.add_predict(commands)
    for name, (_, summary) in _ABSL_COMMANDS.items():
        commands.add_parser(name, help=summary)
    tracks.add_eval_tracks(commands)
    prepare.add_prepare(commands)
    label.add_label(commands)
    learn.add_fit_nms(commands)
    learn.add_fit_pgpg(commands)
    tracks.add_fit_tracker(commands)
    learn.add_ablate(commands)
    models.add_models(commands)
    models.add_convert(commands)
    models.add_export(commands)
    models.add_push(commands)
    return parser
