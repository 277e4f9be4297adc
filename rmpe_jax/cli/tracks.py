"""`rmpe eval-tracks`: score the identities of tracked poses."""

import argparse
import pathlib

from rmpe_jax import arguments

_EVAL_TRACKS_HELP = """\
Score tracked poses against annotated videos: MOTA, IDF1 and HOTA of people, identity switches, and
PoseTrack's MOTA of joints. Prints a table with a row per video and one for all.

TRUTH is PoseTrack18's JSON of one or more videos, or a folder of them. POSES is poses.jsonl of
rmpe predict --track on the images of these videos, or files in PoseTrack18's format. Poses belong
to the frame whose name ends with the name of their image, folders included.
"""
_EVAL_TRACKS_EXAMPLES = """\
examples:
  rmpe eval-tracks --truth posetrack_data/val --poses poses/poses.jsonl
  rmpe eval-tracks --truth clips/posetrack.json --poses tracks.json --similarity iou --out s.json
"""


def add_eval_tracks(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe eval-tracks`."""
    parser = arguments.add_command(
        commands,
        "eval-tracks",
        "score tracked poses against annotated videos",
        _EVAL_TRACKS_HELP,
        _EVAL_TRACKS_EXAMPLES,
    )
    add = parser.add_argument
    add("--truth", required=True, type=pathlib.Path, metavar="TRUTH", help="annotated videos")
    add("--poses", required=True, type=pathlib.Path, metavar="POSES", help="tracked poses")
    add(
        "--similarity",
        choices=("oks", "iou"),
        default="oks",
        help="of a found and an annotated person: OKS, or the IoU of their boxes as in most work "
        "on tracking (default: oks)",
    )
    add(
        "--min-joint-score",
        type=arguments.fraction,
        default=0.2,
        metavar="SCORE",
        help="found joints with lower scores do not count for the MOTA of joints (default: 0.2)",
    )
    add("--out", type=pathlib.Path, metavar="FILE", help="also write the scores as JSON")
    parser.set_defaults(run=_eval_tracks)


def _eval_tracks(args: argparse.Namespace) -> None:
    from rmpe_jax.experiments.eval_tracks import evaluate_tracks, tracks_table

    rows = evaluate_tracks(args.truth, args.poses, args.similarity, args.min_joint_score, args.out)
    print(tracks_table(rows))
