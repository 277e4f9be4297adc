"""`rmpe predict`: poses of the people in images and videos."""

import argparse
import os
import pathlib
import time

from rmpe_jax import arguments

_PREDICT_HELP = """\
Find the poses of the people in images and videos, and write them to a folder.

INPUT is an image, a video, a folder (its images and videos, also in subfolders), a list (.txt, one
path per line), or the number of a webcam, which runs until Ctrl-C. With --track, the images of one
folder are the frames of one video, in the order of their names.

OUT gets poses.jsonl, which grows by one line per image. The outputs of --format, --draw and
--report are written at the end, also when the run is interrupted.
"""
_PREDICT_EXAMPLES = """\
examples:
  rmpe predict photo.jpg --draw
  rmpe predict images/ clip.mp4 --out results --model runs/coco --detector person.onnx --report
  rmpe predict clip.mp4 --out results --track --smooth one-euro --draw
  rmpe predict images/ --out poses --format coco --detector boxes.json --flip-test --resume
"""
_NOT_WITH_BEAM = ("draw", "draw_boxes", "report", "track", "smooth", "tracker_params", "resume")


def add_predict(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe predict`."""
    parser = arguments.add_command(
        commands,
        "predict",
        "find the poses of people in images and videos",
        _PREDICT_HELP,
        _PREDICT_EXAMPLES,
    )
    add = parser.add_argument
    add("inputs", metavar="INPUT", nargs="+", help="see above")
    add(
        "--out",
        default="poses",
        metavar="OUT",
        help="folder for the results (default: poses)",
    )
    add(
        "--model",
        default="builtin",
        metavar="MODEL",
        help="model file, training workdir, folder of a ViTPose, hf:USER/REPOSITORY, or "
        "builtin-small (default: builtin, the larger pose network of the package)",
    )
    add(
        "--detector",
        default="builtin",
        metavar="SPEC",
        help="source of boxes, see docs/detectors.md (default: the detector of the package)",
    )
    add(
        "--nms",
        metavar="NMS",
        help="paper, rmpe, alphapose, or a params.json (default: the model's own, else alphapose)",
    )
    add(
        "--format",
        action="append",
        default=[],
        choices=("jsonl", "coco", "alphapose", "openpose"),
        help="a file format to write in addition to poses.jsonl; can be repeated",
    )
    add("--draw", action="store_true", help="also draw the poses on the images and videos")
    add("--draw-boxes", action="store_true", help="draw the detector's boxes too")
    add("--report", action="store_true", help="also write report.html, a page that shows the poses")
    add("--track", action="store_true", help="also tell who is who over a video: track ids")
    add(
        "--smooth",
        choices=("none", "one-euro", "offline"),
        help="with --track: smooth the poses of each person over time, in all outputs but "
        "poses.jsonl; one-euro uses the past, offline past and future (default: none)",
    )
    add(
        "--tracker-params",
        metavar="FILE",
        help="with --track: the tracker's parameters, a params.json of rmpe fit-tracker",
    )
    add("--resume", action="store_true", help="continue the results in OUT")
    add(
        "--flip-test",
        action="store_true",
        help="average with the mirrored crop; takes twice as long",
    )
    add(
        "--batch-size",
        type=arguments.positive_int,
        metavar="N",
        help="images per batch (default: 8; 1 on a CPU)",
    )
    add(
        "--beam-options",
        metavar="OPTIONS",
        help="predict images on many machines by Apache Beam with these options, such as "
        '--beam-options="--runner=DirectRunner --direct_num_workers=2 '
        '--direct_running_mode=multi_processing"; see docs/scaling.md',
    )
    parser.set_defaults(run=_predict)


def _predict(args: argparse.Namespace) -> None:
    from rmpe_jax.predict.decoder_messages import without_decoder_messages

    predict = _predict_files if args.beam_options is None else _predict_with_beam
    with without_decoder_messages():
        line = predict(args)
    print(line)


def _predict_files(args: argparse.Namespace) -> str:
    """Predict, and return the closing line."""
    from rmpe_jax.detectors.factory import is_lookup
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.errors import UserError
    from rmpe_jax.inference.estimator import PoseEstimator
    from rmpe_jax.lock import FolderLock
    from rmpe_jax.object_store import is_address
    from rmpe_jax.predict.inputs import find_files, frame_names
    from rmpe_jax.predict.run import (
        check_output_folder,
        check_tracking,
        closing_line,
        predict_files,
        prepare_output_folder,
    )
    from rmpe_jax.tracking.params import TrackParams, load_params, params_to_dict

    # Errors of inputs and folder are reported before the model is loaded. Nothing is written to
    # the folder before the model and the detector are accepted.
    if args.tracker_params and not args.track:
        raise UserError("--tracker-params is for the tracker: add --track")
    if is_address(args.out):
        raise UserError(f"--out {args.out}: only --beam-options writes there: name a folder")
    out, file = pathlib.Path(args.out), args.tracker_params
    tracker_params = load_params(file) if file else TrackParams()
    found = find_files(args.inputs, output_folder=out, upright=not is_lookup(args.detector))
    names = ("model", "detector", "nms", "flip_test")
    settings: dict[str, object] = {key: getattr(args, key) for key in names}
    settings["tracker_params"] = params_to_dict(tracker_params) if file else None
    smooth = args.smooth or "none"
    check_tracking(found.inputs, args.track, smooth, args.draw or args.draw_boxes or args.report)
    settings |= {"track": args.track, "smooth": None if smooth == "none" else smooth}
    settings["inputs"] = [os.path.abspath(text) for text in args.inputs]
    with FolderLock(out) as lock:
        check_output_folder(out, settings, args.resume)
        use_compilation_cache()
        estimator = PoseEstimator.from_checkpoint(
            args.model,
            detector=args.detector,
            nms=args.nms,
            flip_test=args.flip_test,
            batch_size=args.batch_size,
        )
        estimator.check_names(frame_names(found.inputs))
        prepare_output_folder(out, settings, args.resume)
        start = time.monotonic()
        summary = predict_files(
            found.inputs,
            out,
            estimator,
            formats=args.format,
            draw=args.draw or args.draw_boxes,
            draw_boxes=args.draw_boxes,
            report=args.report,
            resume=args.resume,
            lock=lock,
            track=args.track,
            smooth=smooth,
            tracker_params=tracker_params,
        )
    seconds = time.monotonic() - start
    return f"{closing_line(summary, found.passed_over)}; wrote {out} in {seconds:.1f} s"


def _predict_with_beam(args: argparse.Namespace) -> str:
    """Predict on the workers of Beam, and return the closing line."""
    from rmpe_jax.errors import UserError
    from rmpe_jax.experiments.beam_predict import EstimatorSettings, predict_with_beam

    given = [name for name in _NOT_WITH_BEAM if getattr(args, name)]
    given += ["format"] if set(args.format) - {"jsonl"} else []
    if given:
        option = given[0].replace("_", "-")
        raise UserError(
            f"--{option} does not go with --beam-options, which writes JSON lines of images: leave "
            "one of them out"
        )
    settings = EstimatorSettings(**{key: getattr(args, key) for key in EstimatorSettings._fields})
    start = time.monotonic()
    line = predict_with_beam(args.inputs, args.out, settings, args.beam_options)
    return f"{line}; wrote {args.out} in {time.monotonic() - start:.1f} s"
