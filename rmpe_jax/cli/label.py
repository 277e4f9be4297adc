"""`rmpe label`: a dataset's people as a model finds them, as a dataset to train on."""

import argparse
import functools
import pathlib
import time
from typing import TYPE_CHECKING

from rmpe_jax import arguments

if TYPE_CHECKING:
    from rmpe_jax.experiments.found_people import SourceSettings
    from rmpe_jax.experiments.label import FileSource

_LABEL_HELP = """\
Label the people of a dataset with a model, and write them with the dataset's own annotations as
the dataset coco:OUT:NAME, to train on.

DATA is a dataset, as for rmpe prepare. Poses are predicted in the boxes of annotated people, and
with --detector or --boxes also in the boxes of others; or they are those of --poses. An annotated
joint stays as it is. Joints that are not annotated are labeled if the model's score is at least
--min-score, and so are people who are not annotated, if they have --min-joints such joints.
docs/data.md has the rule in full.

OUT gets annotations/person_keypoints_NAME.json with COCO's joints, and detections/NAME.json with
the detector's boxes, if there are any, for config.data.detections. Images are not copied. At the
end a table counts people and joints, and a line gives the mean error of the model's joints.
"""
_LABEL_EXAMPLES = """\
examples:
  rmpe label mpii:data/mpii:train --out labeled --name mpii --model vitpose-base-simple/ \\
    --boxes boxes.json --from-model left_hip,right_hip --flip-test
  rmpe label coco:data/coco:train2017 --out labeled --detector builtin --prefer model
  rmpe label coco:data/coco:train2017 --out labeled --poses results.json
"""
_OF_MODEL = ("model", "detector", "min_box_score", "flip_test", "beam_options")  # not with --poses


def add_label(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe label`."""
    parser = arguments.add_command(
        commands,
        "label",
        "label a dataset with a model, to train another one on it",
        _LABEL_HELP,
        _LABEL_EXAMPLES,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="a dataset, such as mpii:FOLDER:train")
    add("--out", required=True, type=pathlib.Path, metavar="OUT", help="folder to write")
    add("--name", default="", metavar="NAME", help="of the labeled dataset (default: that of DATA)")
    add(
        "--model",
        metavar="MODEL",
        help="model file, training workdir, folder of a ViTPose, hf:USER/REPOSITORY, or "
        "builtin-small (default: builtin, the larger pose network of the package)",
    )
    add(
        "--detector",
        metavar="SPEC",
        help="finds people who are not annotated, see docs/detectors.md (default: none)",
    )
    add("--boxes", metavar="FILE", help="a file of a detector's boxes, instead of --detector")
    add(
        "--min-box-score",
        type=arguments.fraction,
        metavar="SCORE",
        help="of a detector's box in which a person is looked for (default: 0.4)",
    )
    add(
        "--flip-test",
        action="store_true",
        help="average with the mirrored crop; takes twice as long",
    )
    add(
        "--poses",
        metavar="FILE",
        help="poses in COCO's result format, of any program, instead of those of a model",
    )
    add(
        "--refit-boxes",
        action="store_true",
        help="replace people's boxes by the detector's that overlap most, with an IoU of 0.5 or "
        "more; for datasets whose boxes are extents of joints, such as MPII and LSP",
    )
    add(
        "--hold-out",
        type=arguments.positive_int,
        default=0,
        metavar="N",
        help="write every N-th image to the dataset coco:OUT:NAME_held_out instead",
    )
    add("--skeleton", metavar="NAME", help="joints of --poses (default: coco)")
    add(
        "--prefer",
        default="annotations",
        choices=("annotations", "model"),
        help="whose joint is taken where both have one; with model that is the model's where its "
        "score is at least --sure (default: annotations)",
    )
    add(
        "--from-model",
        default="",
        metavar="JOINT,...",
        help="joints that are always the model's, such as left_hip,right_hip for MPII",
    )
    _add_thresholds(parser)
    add(
        "--beam-options",
        metavar="OPTIONS",
        help="run detector and model on many machines by Apache Beam with these options, as of "
        "rmpe predict; see docs/scaling.md",
    )
    parser.set_defaults(run=_label)


def _add_thresholds(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--min-score",
        type=arguments.fraction,
        default=0.3,
        metavar="SCORE",
        help="of a model's joint that is labeled (default: 0.3)",
    )
    parser.add_argument(
        "--sure",
        type=arguments.fraction,
        default=0.5,
        metavar="SCORE",
        help="from which on the model is sure of a joint (default: 0.5)",
    )
    parser.add_argument(
        "--max-distance",
        type=arguments.fraction,
        default=0.15,
        metavar="FRACTION",
        help="of the longer side of the box: annotated joints that are farther from those that the "
        "model is sure of are counted as disagreeing (default: 0.15)",
    )
    parser.add_argument(
        "--min-joints",
        type=arguments.positive_int,
        default=4,
        metavar="N",
        help="joints with --min-score of a person without annotated joints (default: 4)",
    )


def _label(args: argparse.Namespace) -> None:
    from rmpe_jax.predict.decoder_messages import without_decoder_messages

    given = [f"--{name.replace('_', '-')}" for name in _OF_MODEL if getattr(args, name)]
    if args.poses and given:
        args.parser.error(f"{given[0]} is for a model, but the poses are those of --poses")
    if args.skeleton and not args.poses:
        args.parser.error("--skeleton gives the joints of --poses")
    if args.refit_boxes and not (args.detector or args.boxes):
        args.parser.error("--refit-boxes needs the boxes of a detector: give --detector or --boxes")
    if args.detector and args.boxes:
        args.parser.error("--detector and --boxes are two sources of boxes: give one of them")
    with without_decoder_messages():
        lines = _label_people(args)
    print(*lines, sep="\n")


def _label_people(args: argparse.Namespace) -> list[str]:
    """Label, and return the table and the lines below it."""
    from rmpe_jax.beam import parse_options
    from rmpe_jax.data.inspection import summary_table
    from rmpe_jax.data.labels import MergeRule
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.experiments.beam_label import find_with_beam
    from rmpe_jax.experiments.found_people import SourceSettings
    from rmpe_jax.experiments.label import label_dataset

    rule = MergeRule(
        prefer=args.prefer,
        min_score=args.min_score,
        sure=args.sure,
        from_model=tuple(filter(None, args.from_model.split(","))),
        max_distance=args.max_distance,
        min_joints=args.min_joints,
    )
    use_compilation_cache()
    start = time.monotonic()
    source, find = _source(args), None
    if isinstance(source, SourceSettings):
        if args.beam_options is not None:
            options = parse_options(args.beam_options)
            find = functools.partial(find_with_beam, args.data, source, args.out, options)
        source = source.open()
    report = label_dataset(
        args.data,
        args.out,
        args.name,
        source,
        rule,
        refit=args.refit_boxes,
        hold_out=args.hold_out,
        find=find,
    )
    lines = [summary_table([(report.name, report.rows())]), report.offset_line()]
    if report.unreadable:
        lines += ["unreadable:", *(f"  {line}" for line in report.unreadable)]
    if report.detections:
        lines.append(f"boxes of the detector: {report.detections}")
    return [*lines, f"wrote {report.name} in {time.monotonic() - start:.1f} s"]


def _source(args: argparse.Namespace) -> "FileSource | SourceSettings":
    from rmpe_jax.experiments.found_people import MIN_BOX_SCORE, SourceSettings
    from rmpe_jax.experiments.label import FileSource
    from rmpe_jax.skeletons import get_skeleton

    if args.poses:
        return FileSource(args.poses, get_skeleton(args.skeleton or "coco"), args.boxes or "")
    return SourceSettings(
        model=args.model or "builtin",
        detector=args.detector,
        detections=args.boxes or "",
        min_box_score=MIN_BOX_SCORE if args.min_box_score is None else args.min_box_score,
        flip_test=args.flip_test,
    )
