"""`rmpe prepare`: data sets in a form that is fast to train from."""

import argparse
import time

from rmpe_jax.cli import arguments

_PREPARE_HELP = """\
Write data sets as one prepared folder (TFDS, array_record), which is fast to read at random, also
over a network.

Every picture is decoded once. Those that cannot be read are left out and named at the end. The
folder appears under its name only when it is complete.

SPEC is coco:FOLDER:SPLIT, coco:FOLDER, mpii:FOLDER:SPLIT, lsp:FOLDER or crowdpose:FOLDER:SPLIT.
"""
_PREPARE_EXAMPLES = """\
examples:
  rmpe prepare prepared/coco coco:data/coco:train2017
  rmpe prepare prepared/mixture coco:data/coco:train2017 mpii:data/mpii:train --shards 16
"""


def add_prepare(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe prepare`."""
    parser = arguments.add_command(
        commands,
        "prepare",
        "write data sets in a form that is fast to train from",
        _PREPARE_HELP,
        _PREPARE_EXAMPLES,
    )
    parser.add_argument("out", metavar="OUT", help="folder to be made")
    parser.add_argument("specs", metavar="SPEC", nargs="+", help="a data set")
    parser.add_argument(
        "--shards", type=arguments.positive, help="number of files (default: by size)"
    )
    parser.add_argument(
        "--max-corrupt",
        type=arguments.share,
        default=0.01,
        metavar="SHARE",
        help="share of pictures that may be unreadable (default: 0.01)",
    )
    parser.set_defaults(run=_prepare)


def _prepare(args: argparse.Namespace) -> None:
    from rmpe_jax.data.prepare import prepare

    start = time.monotonic()
    counts = prepare(args.out, args.specs, args.shards, args.max_corrupt)
    for count in counts:
        print(
            f"{count.name}: {count.images:,} pictures, {count.people:,} people, "
            f"{count.joints:,} joints; left out: {count.no_people:,} without people to train on, "
            f"{len(count.unreadable):,} unreadable"
        )
    unreadable = [line for count in counts for line in count.unreadable]
    if unreadable:
        print("unreadable:", *unreadable, sep="\n  ")
    print(f"wrote {args.out} in {time.monotonic() - start:.1f} s")
