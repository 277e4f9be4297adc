"""`rmpe eval-tracks` and `fit-tracker`: score tracked poses, and learn the tracker's parameters."""

import argparse
import pathlib
import time

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
_FIT_TRACKER_HELP = """\
Learn the parameters of the tracker: those with the highest IDF1 on annotated videos. The tracker
runs over the poses again, with each parameter set; track ids in POSES are not used. Prints IDF1,
MOTA, HOTA and identity switches with the default and with the learned parameters.

TRUTH is PoseTrack18's JSON of one or more videos, or a folder of them. POSES is poses.jsonl of
rmpe predict on all images of these videos, as for rmpe eval-tracks. Do not use the videos that you
report results on.

OUT gets params.json, for rmpe predict --tracker-params, and searches.json (all values tried and
their IDF1).
"""
_FIT_TRACKER_EXAMPLES = """\
examples:
  rmpe fit-tracker --truth posetrack_data/train --poses poses/poses.jsonl --out tracker
  rmpe fit-tracker --truth clips.json --poses poses.jsonl --out tracker --hold-out 0.3
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


def add_fit_tracker(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe fit-tracker`."""
    parser = arguments.add_command(
        commands,
        "fit-tracker",
        "learn the parameters of the tracker from poses and annotated videos",
        _FIT_TRACKER_HELP,
        _FIT_TRACKER_EXAMPLES,
    )
    add = parser.add_argument
    add("--truth", required=True, type=pathlib.Path, metavar="TRUTH", help="annotated videos")
    add("--poses", required=True, type=pathlib.Path, metavar="POSES", help="poses in them")
    add("--out", required=True, type=pathlib.Path, metavar="OUT", help="folder to write")
    add(
        "--steps",
        type=arguments.two_or_more,
        default=7,
        metavar="N",
        help="values of each parameter per search (default: 7)",
    )
    add(
        "--hold-out",
        type=arguments.fraction,
        default=0.0,
        metavar="FRACTION",
        help="part of the videos, the last ones, that are not learned from but scored (default: 0)",
    )
    parser.set_defaults(run=_fit_tracker)


def _fit_tracker(args: argparse.Namespace) -> None:
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.experiments.fit_tracker import fit_from_files, scores_table
    from rmpe_jax.experiments.searches import search_line

    use_compilation_cache()
    start = time.monotonic()
    tables = fit_from_files(
        args.truth,
        args.poses,
        args.out,
        steps=args.steps,
        hold_out=args.hold_out,
        report=lambda search: print(search_line(search, "IDF1"), flush=True),
    )
    for title, rows in tables.items():
        print(f"\n{scores_table(title, rows)}")
    if len(tables) == 1:
        print("\nThese are the videos learned from: judge the parameters on others (--hold-out).")
    print(f"\nwrote {args.out} in {time.monotonic() - start:.1f} s")
