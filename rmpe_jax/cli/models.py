"""`rmpe models`, `convert`, `export` and `push`: trained networks from and for others."""

import argparse
import re
import time

from rmpe_jax import arguments

_CONVERT_HELP = """\
Convert a checkpoint of another project to a model file for rmpe predict, rmpe eval and
PoseEstimator, with the crops and the decoding of that project.

  alphapose  a .pth file of FastPose, FastPose-DUC, SimplePose or HRNet (not DCN); with its NMS
  mmpose     a .pth file of HRNet-W32, HRNet-W48, SimpleBaseline, ViTPose or RTMPose, of mmpose
             0.x or 1.x
  vitpose    ViTPose or ViTPose+: a folder of Hugging Face, or a .pth file of the paper's code or of
             mmpose 1.x

The network is identified by the names of its tensors. Files are read without torch, and nothing in
them is executed. The options give what the checkpoint does not contain: the joints, if their number
is ambiguous; the size of the crops; and the loss or the codec, which determines how heatmaps are
decoded. See docs/interop.md.
"""
_CONVERT_EXAMPLES = """\
examples:
  rmpe convert alphapose fast_res50_256x192.pth --out fastpose.safetensors
  rmpe convert alphapose duc_se.pth --out fastpose.safetensors --input-size 320x256
  rmpe convert alphapose halpe136_mse.pth --out halpe.safetensors --loss mse
  rmpe convert mmpose hrnet_w48_coco_384x288.pth --out hrnet.safetensors --input-size 384x288
  rmpe convert mmpose hrnet_w32_coco_256x192_udp.pth --out hrnet.safetensors --codec udp
  rmpe convert mmpose rtmpose-m_coco_256x192.pth --out rtmpose.safetensors
  rmpe convert vitpose vitpose-base-simple/ --out vitpose.safetensors
"""
_EXPORT_HELP = """\
Write a trained pose network as a file that other software runs: StableHLO for JAX on CPU, CUDA and
TPU, or ONNX. The batch size is not fixed.

MODEL is a model file, a training workdir, a folder of a ViTPose, hf:USER/REPOSITORY, builtin, or
builtin-small. OUT.json, beside OUT, describes inputs and outputs, how crops are made and
normalized, and the joints; docs/export.md shows how to load both.
"""
_EXPORT_EXAMPLES = """\
examples:
  rmpe export runs/synthetic --format=stablehlo --function=keypoints --out=pose.stablehlo
  rmpe export pose.safetensors --format=onnx --channels-first --out=pose.onnx
"""
_MODELS_HELP = """\
List published weights that work here: joints, parameters, published COCO AP, license, and the
command to use them. With a name, of weights or of a network, print all that is known.

AP is that of the publishers, except for builtin and builtin-small, and comparable only if
measured in the same way: see the source of each. docs/models.md lists all networks.
"""
_MODELS_EXAMPLES = """\
examples:
  rmpe models
  rmpe models hf:usyd-community/vitpose-plus-base
  rmpe models fastpose_res50
"""
_PUSH_HELP = """\
Upload a pose network to the Hugging Face Hub, as pose.safetensors with a card, README.md. Then
--model=hf:USER/REPOSITORY names it everywhere. This needs pip install 'rmpe_jax[hub]', and a login
by `hf auth login` or HF_TOKEN.

MODEL is a model file, a training workdir, a folder of a ViTPose, hf:USER/REPOSITORY, builtin, or
builtin-small. --license is that of the weights: weights that were converted or fine-tuned keep the
terms of those they come from.
"""
_PUSH_EXAMPLES = """\
examples:
  rmpe push pose.safetensors hf:somebody/poses --license apache-2.0
  rmpe push runs/poses hf:somebody/poses --license cc-by-nc-4.0 --private
"""


def add_models(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe models`."""
    parser = arguments.add_command(
        commands, "models", "list published weights that work here", _MODELS_HELP, _MODELS_EXAMPLES
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="print these weights in full")
    parser.set_defaults(run=_models)


def _models(args: argparse.Namespace) -> None:
    from rmpe_jax.model_io.known import describe, list_known

    print(describe(args.name) if args.name else list_known())


def add_convert(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe convert`."""
    parser = arguments.add_command(
        commands,
        "convert",
        "convert a checkpoint of another project to a model file",
        _CONVERT_HELP,
        _CONVERT_EXAMPLES,
    )
    parser.add_argument("project", choices=["alphapose", "mmpose", "vitpose"], help="the project")
    parser.add_argument("file", metavar="FILE", help="the .pth file, or the folder")
    parser.add_argument("--out", required=True, metavar="OUT", help="file to write, .safetensors")
    parser.add_argument(
        "--skeleton", default="", help="joint set (default: by the number of joints)"
    )
    parser.add_argument(
        "--input-size",
        type=arguments.image_size,
        metavar="HEIGHTxWIDTH",
        help="size of the crops (default: 256x192; of a ViTPose and an RTMPose, that of the "
        "checkpoint)",
    )
    parser.add_argument(
        "--loss",
        default="",
        choices=["mse", "symmetric_integral"],
        help="alphapose only: loss of the training (default: symmetric_integral for 133 and 136 "
        "joints, else mse)",
    )
    parser.add_argument(
        "--codec",
        default="",
        choices=["msra", "dark", "udp"],
        help="mmpose only: how its training made heatmaps: msra (default), dark (MSRA's, unbiased) "
        "or udp (of a ViTPose always); not for an RTMPose",
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
    from rmpe_jax.experiments.convert import (
        convert_alphapose,
        convert_mmpose,
        convert_vitpose,
        summary,
    )

    for option, project in (("loss", "alphapose"), ("codec", "mmpose"), ("expert", "vitpose")):
        if getattr(args, option) and args.project != project:
            raise UserError(f"--{option} is not for {args.project}: leave it out")
    if args.project == "mmpose":
        model = convert_mmpose(
            args.file,
            args.out,
            skeleton=args.skeleton,
            input_size=args.input_size,
            codec=args.codec,
        )
    elif args.project == "vitpose":
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


def add_push(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe push`."""
    parser = arguments.add_command(
        commands, "push", "upload a pose network to the hub", _PUSH_HELP, _PUSH_EXAMPLES
    )
    parser.add_argument("model", metavar="MODEL", help="the network")
    parser.add_argument("name", metavar="hf:USER/REPOSITORY", help="where to upload it")
    parser.add_argument(
        "--license",
        required=True,
        type=_license,
        metavar="ID",
        help="license of the weights, as the hub writes it: apache-2.0, cc-by-nc-4.0, other, ...",
    )
    parser.add_argument("--private", action="store_true", help="others shall not see it")
    parser.set_defaults(run=_push)


def _push(args: argparse.Namespace) -> None:
    from rmpe_jax.experiments.push import push_model

    url = push_model(args.model, args.name, args.license, private=args.private)
    print(f"uploaded to {url}; use it with --model={args.name}")


def _license(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an identifier such as apache-2.0")
    return text
