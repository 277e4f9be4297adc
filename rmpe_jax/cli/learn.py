"""`rmpe fit-nms`, `fit-pgpg` and `ablate`: what is learned around the network, and its worth."""

import argparse
import pathlib
import time

from rmpe_jax.cli import arguments

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


def add_fit_nms(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe fit-nms`."""
    parser = arguments.add_command(
        commands,
        "fit-nms",
        "learn the parameters of pose NMS from predictions and annotations",
        _FIT_NMS_HELP,
        _FIT_NMS_EXAMPLES,
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
        type=arguments.positive,
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


def add_fit_pgpg(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe fit-pgpg`."""
    parser = arguments.add_command(
        commands,
        "fit-pgpg",
        "learn box proposals for training from a detector's boxes",
        _FIT_PGPG_HELP,
        _FIT_PGPG_EXAMPLES,
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
        type=arguments.whole,
        nargs="+",
        metavar="N",
        help="numbers to choose from (default: 0 4 8 16 32); 0 is one mixture for all poses",
    )
    parser.add_argument(
        "--gaussians",
        type=arguments.positive,
        nargs="+",
        metavar="N",
        help="numbers for each atom to choose from (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--min-iou",
        type=arguments.share,
        default=0.5,
        help="of a box and its person (default: 0.5)",
    )
    parser.add_argument(
        "--min-score",
        type=arguments.share,
        default=0.09,
        help="of a box (default: 0.09, the paper's)",
    )
    parser.add_argument(
        "--seed", type=arguments.whole, default=0, help="of all that is random (default: 0)"
    )
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


def add_ablate(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe ablate`."""
    parser = arguments.add_command(
        commands,
        "ablate",
        "train and score RMPE with one part left out at a time",
        _ABLATE_HELP,
        _ABLATE_EXAMPLES,
    )
    parser.add_argument("--config", required=True, metavar="FILE", help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="folder for all files")
    parser.add_argument(
        "--seeds",
        type=arguments.whole,
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
