"""`rmpe predict`: from pictures and videos to poses."""

import argparse
import os
import pathlib
import sys
import time

from rmpe_jax.cli import arguments

_PREDICT_HELP = """\
Find the poses of the people in pictures and videos, and write them to a folder.

INPUT is a picture, a folder (with its subfolders), a list (.txt, a path a line), a video, or the
number of a webcam, which is stopped with Ctrl-C.

OUT gets poses.jsonl, a line for each picture as soon as it is done, and at the end, also of a run
that is interrupted, what --format, --draw and --report ask for.
"""
_PREDICT_EXAMPLES = """\
examples:
  rmpe predict photo.jpg --draw
  rmpe predict pictures/ clip.mp4 --out results --model runs/coco --detector person.onnx --report
  rmpe predict pictures/ --out poses --format coco --detector boxes.json --flip-test --resume
"""


def add_predict(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe predict`."""
    parser = arguments.add_command(
        commands,
        "predict",
        "find people's poses in pictures and videos",
        _PREDICT_HELP,
        _PREDICT_EXAMPLES,
    )
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", help="see above")
    add(
        "--out",
        default=pathlib.Path("poses"),
        type=pathlib.Path,
        metavar="OUT",
        help="folder for the results (default: poses)",
    )
    add(
        "--model",
        default="builtin",
        metavar="PATH",
        help="model file, or workdir of a training run (default: the one that comes with rmpe)",
    )
    add(
        "--detector",
        default="builtin",
        metavar="SPEC",
        help="where boxes come from, see docs/detectors.md (default: comes with rmpe)",
    )
    add(
        "--nms",
        metavar="PARAMS",
        help="paper, rmpe, alphapose or a params.json (default: the model's own, else alphapose)",
    )
    add(
        "--format",
        action="append",
        default=[],
        choices=("jsonl", "coco", "alphapose", "openpose"),
        help="a form of results beside poses.jsonl, which is always written; may come repeatedly",
    )
    add("--draw", action="store_true", help="also pictures and videos with the poses on them")
    add("--draw-boxes", action="store_true", help="draw the detector's boxes too")
    add("--boxes", action="store_true", help=argparse.SUPPRESS)  # its old name
    add("--report", action="store_true", help="also report.html, a page to look at the poses")
    add("--resume", action="store_true", help="go on with the results in OUT")
    add("--flip-test", action="store_true", help="look at mirrored people too, for twice the time")
    add("--batch", type=arguments.positive, help="pictures at a time (default: 8, on a CPU 1)")
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> None:
    from rmpe_jax.detectors.factory import looks_up
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.inference.estimator import PoseEstimator
    from rmpe_jax.predict.inputs import find_inputs
    from rmpe_jax.predict.run import predict_files, prepare_output_folder

    if args.boxes:
        print("--boxes is now called --draw-boxes; the old name still works", file=sys.stderr)
        args.draw_boxes = True
    # What is wrong with the inputs or the folder is said at once.
    inputs = find_inputs(args.inputs, leave_out=args.out, upright=not looks_up(args.detector))
    settings = {key: getattr(args, key) for key in ("model", "detector", "nms", "flip_test")}
    settings["inputs"] = [os.path.abspath(text) for text in args.inputs]
    prepare_output_folder(args.out, settings, args.resume)
    use_compilation_cache()
    estimator = PoseEstimator.from_checkpoint(
        args.model,
        detector=args.detector,
        nms=args.nms,
        flip_test=args.flip_test,
        batch_size=args.batch,
    )
    start = time.monotonic()
    done = predict_files(
        inputs,
        args.out,
        estimator,
        formats=args.format,
        draw=args.draw or args.draw_boxes,
        draw_boxes=args.draw_boxes,
        report=args.report,
        resume=args.resume,
    )
    before = f", {done.done_before:,} pictures done before" if done.done_before else ""
    print(
        f"{done.pictures:,} pictures, {done.people:,} people, {done.unreadable:,} pictures "
        f"unreadable{before}; wrote {args.out} in {time.monotonic() - start:.1f} s"
    )
