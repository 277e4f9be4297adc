"""`rmpe prepare`: datasets in a format that is fast to train from."""

import argparse
import time

from rmpe_jax import arguments

_PREPARE_HELP = """\
Write datasets to one prepared folder (TFDS, array_record). Reading it in random order is fast, also
over a network.

Every image is decoded once. Unreadable images are skipped and listed at the end. Labels that do
not fit their image are counted; if there are many, nothing is written. The folder gets its name
only when it is complete.

SPEC is coco:FOLDER:SPLIT, coco:FOLDER, mpii:FOLDER:SPLIT, lsp:FOLDER or crowdpose:FOLDER:SPLIT.
"""
_PREPARE_EXAMPLES = """\
examples:
  rmpe prepare coco:data/coco:train2017 --out prepared/coco
  rmpe prepare coco:data/coco:train2017 mpii:data/mpii:train --out prepared/both --shards 16
"""


def add_prepare(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe prepare`."""
    parser = arguments.add_command(
        commands,
        "prepare",
        "write datasets in a format that is fast to train from",
        _PREPARE_HELP,
        _PREPARE_EXAMPLES,
    )
    parser.add_argument("specs", metavar="SPEC", nargs="+", help="a dataset")
    parser.add_argument("--out", metavar="OUT", help="folder to write; must not exist")
    parser.add_argument(
        "--shards",
        type=arguments.positive_int,
        metavar="N",
        help="number of files (default: chosen by size)",
    )
    parser.add_argument(
        "--max-corrupt",
        type=arguments.fraction,
        default=0.01,
        metavar="FRACTION",
        help="fraction of images that may be unreadable (default: 0.01)",
    )
    parser.add_argument(
        "--max-suspicious",
        type=arguments.fraction,
        default=0.2,
        metavar="FRACTION",
        help="fraction of people whose labels may not fit their image, and of images that may not "
        "have the declared size (default: 0.2)",
    )
    parser.add_argument(
        "--beam-options",
        metavar="OPTIONS",
        help="read and write on many machines by Apache Beam with these options, as of rmpe "
        "predict; see docs/scaling.md",
    )
    parser.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from rmpe_jax.beam import parse_options
    from rmpe_jax.data.inspection import summary_table
    from rmpe_jax.data.prepare import prepare
    from rmpe_jax.predict.decoder_messages import without_decoder_messages

    out, specs = _out_and_specs(args)
    options = None if args.beam_options is None else parse_options(args.beam_options)
    start = time.monotonic()
    with without_decoder_messages():
        counts = prepare(out, specs, args.shards, args.max_corrupt, args.max_suspicious, options)
    print(summary_table([(count.name, count.rows()) for count in counts]))
    unreadable = [line for count in counts for line in count.unreadable]
    if unreadable:
        print("unreadable:", *unreadable, sep="\n  ")
    print(f"wrote {out} in {time.monotonic() - start:.1f} s")


def _out_and_specs(args: argparse.Namespace) -> tuple[str, list[str]]:
    """Output folder and datasets; also of the old form `rmpe prepare OUT SPEC ...`."""
    if args.out is not None:
        return args.out, args.specs
    if len(args.specs) < 2 or ":" in args.specs[0]:
        args.parser.error("the following arguments are required: --out")
    arguments.warn_renamed("rmpe prepare OUT SPEC ...", "rmpe prepare SPEC ... --out OUT")
    return args.specs[0], args.specs[1:]
