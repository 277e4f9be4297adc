"""The `rmpe` command: one thin function for each subcommand, with its imports inside."""

import argparse
import logging
import pathlib
import re
import signal
import sys
import time
from collections.abc import Sequence

from rmpe_jax.errors import UserError

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
_FIT_NMS_HELP = """\
Learn the four parameters of pose NMS: those with the greatest COCO AP on annotated pictures.

RESULTS are poses in COCO's result form before any NMS, as eval.py --nms=none writes them with a
detector's boxes: each with its box and the box's score. ANNOTATIONS is COCO keypoint ground truth
of the same pictures; it should not be the set that you report results on.

OUT gets params.json, searches.json (all that was tried) and heat_maps.png.
"""
_FIT_NMS_EXAMPLES = """\
examples:
  rmpe fit-nms eval/results.json data/coco/annotations/person_keypoints_train2017.json --out nms
  rmpe fit-nms eval/results.json annotations.json --out nms --start alphapose
"""

_FIT_PGPG_HELP = """\
Learn from detectors' boxes how boxes lie around people in each kind of pose (PGPG), for proposals
to train on: config.data.proposals="atomic" and config.data.pgpg_model="OUT/pgpg.npz".

Numbers of atomic poses and of Gaussians are those that make boxes on other pictures likeliest.
OUT gets pgpg.npz, report.md (all that was tried, and simpler models beside the one chosen), and,
with matplotlib, atoms.png and offsets.png.
"""
_FIT_PGPG_EXAMPLES = """\
examples:
  rmpe fit-pgpg --out pgpg --data coco:data/coco:train2017 detections.json
  rmpe fit-pgpg --out pgpg --data mpii:data/mpii:train a.json b.json --data lsp:data/lsp c.json
"""
_ABLATE_HELP = """\
Train and score the systems of Table 3 of RMPE's paper, with one part left out at a time, for
several seeds; run again it goes on where it was stopped.

WORKDIR gets table.md, table.json, bars.png and theta.png, after each seed anew, and a folder for
each seed with all that led to them.
"""
_ABLATE_EXAMPLES = """\
examples:
  rmpe ablate --config=configs/ablation_synthetic.py --workdir=ablation
  rmpe ablate --config=configs/ablation_synthetic.py --workdir=ablation --seeds 0
  rmpe ablate --config=configs/ablation_synthetic.py --workdir=ablation --seeds
"""
_PREDICT_HELP = """\
Find the poses of the people in pictures and videos, and write them to a folder.

INPUT is a picture, a folder (with its subfolders), a list (.txt, a path a line), a video, or the
number of a webcam, which is stopped with Ctrl-C.

OUT gets poses.jsonl, a line for each picture as soon as it is done, and at the end, also of a run
that is interrupted, what --format, --draw and --report ask for.
"""
_PREDICT_EXAMPLES = """\
examples:
  rmpe predict photo.jpg --out poses --draw
  rmpe predict pictures/ clip.mp4 --out poses --model runs/coco --detector person.onnx --report
  rmpe predict pictures/ --out poses --format coco --detector boxes.json --flip-test --resume
"""
_EXPORT_HELP = """\
Write a trained pose network as a file that other programs run: StableHLO for JAX on CPU, CUDA and
TPU, or ONNX. The size of the batch stays open.

MODEL is a model file, a training run's workdir, or "builtin". FILE.json, beside FILE, says what
goes in and comes out, how crops are made and normalised, and what the joints are; docs/export.md
shows how to load both.
"""
_EXPORT_EXAMPLES = """\
examples:
  rmpe export runs/synthetic --to=stablehlo --function=keypoints --out=pose.stablehlo
  rmpe export pose.safetensors --to=onnx --channels-first --out=pose.onnx
"""

_CONVERT_HELP = """\
Convert a checkpoint of AlphaPose (FastPose, FastPose-DUC, SimplePose, HRNet-W32; not DCN) to a
model file for rmpe predict, eval.py and PoseEstimator, with AlphaPose's crops, decoding and NMS.

The network is read off the names of its tensors. The file is read without torch, and nothing in it
is executed. What it does not tell can be said: the joints, if their number does not, the size of
the crops, and the loss, which says how heatmaps are read. See docs/interop.md.
"""
_CONVERT_EXAMPLES = """\
examples:
  rmpe convert alphapose fast_res50_256x192.pth --out fastpose.safetensors
  rmpe convert alphapose duc_se.pth --out fastpose.safetensors --input-size 320x256
  rmpe convert alphapose halpe136_mse.pth --out halpe.safetensors --loss mse
"""


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
    _add_predict(commands)
    _add_prepare(commands)
    _add_fit_nms(commands)
    _add_fit_pgpg(commands)
    _add_ablate(commands)
    _add_convert(commands)
    _add_export(commands)
    return parser


def _add_predict(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "predict",
        help="find people's poses in pictures and videos",
        description=_PREDICT_HELP,
        epilog=_PREDICT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", help="see above")
    add("--out", required=True, type=pathlib.Path, metavar="OUT", help="folder for the results")
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
    add("--report", action="store_true", help="also report.html, a page to look at the poses")
    add("--resume", action="store_true", help="go on with the results in OUT")
    add("--flip-test", action="store_true", help="look at mirrored people too, for twice the time")
    add("--batch", type=_positive, help="pictures at a time (default: 8, on a CPU 1)")
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> None:
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.inference.estimator import PoseEstimator
    from rmpe_jax.inference.inputs import find_inputs
    from rmpe_jax.inference.run import predict_files

    inputs = find_inputs(args.inputs, leave_out=args.out)  # what is wrong with them is said at once
    use_compilation_cache()
    estimator = PoseEstimator.from_checkpoint(
        args.model,
        detector=args.detector,
        nms=args.nms,
        flip_test=args.flip_test,
        batch_size=args.batch,
    )
    settings = {key: getattr(args, key) for key in ("model", "detector", "nms", "flip_test")}
    start = time.monotonic()
    done = predict_files(
        inputs,
        args.out,
        estimator,
        settings=settings,
        formats=args.format,
        draw=args.draw,
        report=args.report,
        resume=args.resume,
    )
    before = f", {done.done_before:,} pictures done before" if done.done_before else ""
    print(
        f"{done.pictures:,} pictures, {done.people:,} people, {done.unreadable:,} pictures "
        f"unreadable{before}; wrote {args.out} in {time.monotonic() - start:.1f} s"
    )


def _add_prepare(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "prepare",
        help="write data sets in a form that is fast to train from",
        description=_PREPARE_HELP,
        epilog=_PREPARE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("out", metavar="OUT", help="folder to be made")
    parser.add_argument("specs", metavar="SPEC", nargs="+", help="a data set")
    parser.add_argument("--shards", type=_positive, help="number of files (default: by size)")
    parser.add_argument(
        "--max-corrupt",
        type=_share,
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
            f"{count.name}: {count.pictures:,} pictures, {count.people:,} people, "
            f"{count.joints:,} joints; left out: {count.nobody:,} without people to train on, "
            f"{len(count.unreadable):,} unreadable"
        )
    unreadable = [line for count in counts for line in count.unreadable]
    if unreadable:
        print("unreadable:", *unreadable, sep="\n  ")
    print(f"wrote {args.out} in {time.monotonic() - start:.1f} s")


def _add_fit_nms(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "fit-nms",
        help="learn the parameters of pose NMS from predictions and annotations",
        description=_FIT_NMS_HELP,
        epilog=_FIT_NMS_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", metavar="RESULTS", help="JSON file of poses before NMS")
    parser.add_argument("annotations", metavar="ANNOTATIONS", help="JSON file of ground truth")
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for what is learned")
    parser.add_argument(
        "--start",
        default="rmpe",
        metavar="PARAMS",
        help="rmpe (default), paper, alphapose or a params.json: the form of the rule, and where "
        "the search begins",
    )
    parser.add_argument("--skeleton", default="coco", help="joint set (default: coco)")
    parser.add_argument(
        "--steps",
        type=_positive,
        default=15,
        help="values tried of each parameter at a time (default: 15)",
    )
    parser.set_defaults(run=_fit_nms)


def _fit_nms(args: argparse.Namespace) -> None:
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.experiments.evaluate import metrics_table
    from rmpe_jax.experiments.fit_nms import fit_nms, search_line
    from rmpe_jax.pose_nms import load_params
    from rmpe_jax.skeletons import get_skeleton

    use_compilation_cache()
    start = time.monotonic()
    metrics = fit_nms(
        args.results,
        args.annotations,
        args.out,
        load_params(args.start),
        get_skeleton(args.skeleton),
        steps=args.steps,
        report=lambda search: print(search_line(search), flush=True),
    )
    print(f"\n{metrics_table(metrics)}\n\nwrote {args.out} in {time.monotonic() - start:.1f} s")


def _add_fit_pgpg(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "fit-pgpg",
        help="learn box proposals for training from a detector's boxes",
        description=_FIT_PGPG_HELP,
        epilog=_FIT_PGPG_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--out", required=True, metavar="OUT", help="folder for what is learned")
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        nargs="+",
        metavar=("SPEC", "FILE"),
        help="a data set as for rmpe prepare, and JSON files of detectors' boxes on its pictures",
    )
    parser.add_argument(
        "--poses",
        default=[],
        action="append",
        metavar="NPZ",
        help="more poses for the atoms: an array 'joints' (n, 16, 2) of MPII's, -1 where unknown",
    )
    parser.add_argument(
        "--atoms",
        type=_whole,
        nargs="+",
        metavar="N",
        help="numbers to choose from (default: 0 4 8 16 32); 0 is one mixture for all poses",
    )
    parser.add_argument(
        "--gaussians",
        type=_positive,
        nargs="+",
        metavar="N",
        help="numbers for each atom to choose from (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--min-iou", type=_share, default=0.5, help="of a box and its person (default: 0.5)"
    )
    parser.add_argument(
        "--min-score", type=_share, default=0.09, help="of a box (default: 0.09, the paper's)"
    )
    parser.add_argument("--seed", type=_whole, default=0, help="of all that is random (default: 0)")
    parser.set_defaults(run=_fit_pgpg)


def _fit_pgpg(args: argparse.Namespace) -> None:
    from rmpe_jax.experiments.fit_pgpg import Options, fit_from_files
    from rmpe_jax.pgpg.fit import NUM_ATOMS, NUM_COMPONENTS

    options = Options(
        num_atoms=tuple(args.atoms or NUM_ATOMS),
        num_components=tuple(args.gaussians or NUM_COMPONENTS),
        min_iou=args.min_iou,
        min_score=args.min_score,
        seed=args.seed,
    )
    start = time.monotonic()
    print(fit_from_files(args.out, args.data, args.poses, options))
    print(f"wrote {args.out} in {time.monotonic() - start:.1f} s")


def _add_ablate(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "ablate",
        help="train and score RMPE with one part left out at a time",
        description=_ABLATE_HELP,
        epilog=_ABLATE_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder for all files")
    parser.add_argument(
        "--seeds",
        type=_whole,
        nargs="*",
        metavar="N",
        help="by default those of the config; without a number: only write the table",
    )
    parser.set_defaults(run=_ablate)


def _ablate(args: argparse.Namespace) -> None:
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.experiments.ablation.report import write_report
    from rmpe_jax.experiments.ablation.run import load_ablation, run_seed

    use_compilation_cache()
    config, folder = load_ablation(args.config), pathlib.Path(args.workdir)
    for seed in config.ablation.seeds if args.seeds is None else args.seeds:
        run_seed(config, folder, seed)
        write_report(config, folder)
    print(write_report(config, folder))


def _add_export(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "export",
        help="write a pose network as StableHLO or ONNX",
        description=_EXPORT_HELP,
        epilog=_EXPORT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", metavar="MODEL", help="the network")
    parser.add_argument("--to", required=True, choices=("stablehlo", "onnx"), help="the format")
    parser.add_argument("--out", required=True, metavar="FILE", help="file to be made")
    parser.add_argument(
        "--function",
        choices=("heatmaps", "keypoints"),
        default="heatmaps",
        help="what it computes: heatmaps of normalised crops (default), or keypoints and scores of "
        "crops of RGB bytes",
    )
    parser.add_argument(
        "--channels-first",
        action="store_true",
        help="ONNX only: crops and heatmaps are (batch, channels, height, width)",
    )
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> None:
    from rmpe_jax.experiments.export import export_model
    from rmpe_jax.inference.pose_model import load_pose_model

    start = time.monotonic()
    about = export_model(
        load_pose_model(args.model),
        args.out,
        args.to,
        function=args.function,
        channels_first=args.channels_first,
    )
    for end in (about["input"], *about["outputs"]):
        shape = ", ".join(map(str, end["shape"]))
        print(f"{end['name']} ({shape}) {end['dtype']}: {end['values']}")
    print(f"wrote {args.out} and {args.out}.json in {time.monotonic() - start:.1f} s")


def _add_convert(commands: argparse._SubParsersAction) -> None:
    parser = commands.add_parser(
        "convert",
        help="make a model file of a checkpoint of another project",
        description=_CONVERT_HELP,
        epilog=_CONVERT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("project", choices=["alphapose"], help="whose checkpoint it is")
    parser.add_argument("file", metavar="FILE", help="the .pth file")
    parser.add_argument("--out", required=True, metavar="OUT", help="file to write, .safetensors")
    parser.add_argument("--skeleton", default="", help="joint set (default: by their number)")
    parser.add_argument(
        "--input-size",
        type=_size,
        default=(256, 192),
        metavar="HxW",
        help="of the crops (default: 256x192)",
    )
    parser.add_argument(
        "--loss",
        default="",
        choices=["mse", "symmetric_integral"],
        help="trained with (default: symmetric_integral for 133 and 136 joints, else mse)",
    )
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> None:
    from rmpe_jax.experiments.convert import convert_alphapose, summary

    model = convert_alphapose(
        args.file,
        args.out,
        skeleton=args.skeleton,
        input_size=args.input_size,
        loss=args.loss,
    )
    print(f"{summary(model)}\nwrote {args.out}")


def _size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"([1-9]\d{0,4})x([1-9]\d{0,4})", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, such as 256x192")
    return int(match[1]), int(match[2])


def _whole(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
