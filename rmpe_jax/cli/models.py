"""`rmpe convert` and `rmpe export`: trained networks from and for other software."""

import argparse
import time

from rmpe_jax import arguments

_CONVERT_HELP = """\
Convert a checkpoint of another project to a model file for rmpe predict, rmpe eval and
PoseEstimator, with the crops and the decoding of that project.

  alphapose  a .pth file of FastPose, FastPose-DUC, SimplePose or HRNet-W32 (not DCN); with its NMS
  vitpose    ViTPose or ViTPose+: a folder of Hugging Face, or a .pth file of the paper's code or of
             mmpose 1.x

The network is identified by the names of its tensors. Files are read without torch, and nothing in
them is executed. The options give what the checkpoint does not contain: the joints, if their number
is ambiguous; the size of the crops; and the loss, which determines how heatmaps are decoded. See
docs/interop.md.
"""
_CONVERT_EXAMPLES = """\
examples:
  rmpe convert alphapose fast_res50_256x192.pth --out fastpose.safetensors
  rmpe convert alphapose duc_se.pth --out fastpose.safetensors --input-size 320x256
  rmpe convert alphapose halpe136_mse.pth --out halpe.safetensors --loss mse
  rmpe convert vitpose vitpose-base-simple/ --out vitpose.safetensors
"""
_EXPORT_HELP = """\
Write a trained pose network as a file that other software runs: StableHLO for JAX on CPU, CUDA and
TPU, or ONNX. The batch size is not fixed.

MODEL is a model file, a training workdir, or "builtin". OUT.json, beside OUT, describes inputs and
outputs, how crops are made and normalized, and the joints; docs/export.md shows how to load both.
"""
_EXPORT_EXAMPLES = """\
examples:
  rmpe export runs/synthetic --format=stablehlo --function=keypoints --out=pose.stablehlo
  rmpe export pose.safetensors --format=onnx --channels-first --out=pose.onnx
"""


def add_convert(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe convert`."""
    parser = arguments.add_command(
        commands,
        "convert",
        "convert a checkpoint of another project to a model file",
        _CONVERT_HELP,
        _CONVERT_EXAMPLES,
    )
    parser.add_argument("project", choices=["alphapose", "vitpose"], help="the project")
    parser.add_argument("file", metavar="FILE", help="the .pth file, or the folder")
    parser.add_argument("--out", required=True, metavar="OUT", help="file to write, .safetensors")
    parser.add_argument(
        "--skeleton", default="", help="joint set (default: by the number of joints)"
    )
    parser.add_argument(
        "--input-size",
        type=arguments.image_size,
        metavar="HEIGHTxWIDTH",
        help="size of the crops (default: 256x192; of a ViTPose, that of the checkpoint)",
    )
    parser.add_argument(
        "--loss",
        default="",
        choices=["mse", "symmetric_integral"],
        help="alphapose only: loss of the training (default: symmetric_integral for 133 and 136 "
        "joints, else mse)",
    )
    parser.add_argument(
        "--expert",
        type=int,
        default=0,
        metavar="INDEX",
        help="ViTPose+ only: 0 COCO (default), 1 AI Challenger, 2 MPII, 3 AP-10K, 4 APT-36K, "
        "5 COCO-WholeBody",
    )
    parser.set_defaults(run=_convert)


def _convert(args: argparse.Namespace) -> None:
    from rmpe_jax.errors import UserError
    from rmpe_jax.experiments.convert import convert_alphapose, convert_vitpose, summary

    unused = ("loss", args.loss) if args.project == "vitpose" else ("expert", args.expert)
    if unused[1]:
        raise UserError(f"--{unused[0]} is not for {args.project}: leave it out")
    if args.project == "vitpose":
        model = convert_vitpose(
            args.file,
            args.out,
            skeleton=args.skeleton,
            input_size=args.input_size,
            expert=args.expert,
        )
    else:
        model = convert_alphapose(
            args.file,
            args.out,
            skeleton=args.skeleton,
            input_size=args.input_size or (256, 192),
            loss=args.loss,
        )
    print(f"{summary(model)}\nwrote {args.out}")


def add_export(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe export`."""
    parser = arguments.add_command(
        commands,
        "export",
        "export a pose network to StableHLO or ONNX",
        _EXPORT_HELP,
        _EXPORT_EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="the network")
    parser.add_argument(
        "--format", required=True, choices=("stablehlo", "onnx"), help="the file format"
    )
    parser.add_argument("--out", required=True, metavar="OUT", help="file to write")
    parser.add_argument(
        "--function",
        choices=("heatmaps", "keypoints"),
        default="heatmaps",
        help="what the file computes: heatmaps from normalized crops (default), or keypoints and "
        "scores from crops of RGB bytes",
    )
    parser.add_argument(
        "--channels-first",
        action="store_true",
        help="ONNX only: crops and heatmaps are (batch, channels, height, width)",
    )
    parser.set_defaults(run=_export)


def _export(args: argparse.Namespace) -> None:
    from rmpe_jax.experiments.export import export_model
    from rmpe_jax.model_io.pose_model import load_pose_model

    start = time.monotonic()
    about = export_model(
        load_pose_model(args.model),
        args.out,
        args.format,
        function=args.function,
        channels_first=args.channels_first,
    )
    for end in (about["input"], *about["outputs"]):
        shape = ", ".join(map(str, end["shape"]))
        print(f"{end['name']} ({shape}) {end['dtype']}: {end['values']}")
    print(f"wrote {args.out} and {args.out}.json in {time.monotonic() - start:.1f} s")
