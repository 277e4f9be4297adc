"""`rmpe fit-nms`, `fit-pgpg` and `ablate`: fit pose NMS and PGPG, and measure what each adds."""

import argparse
import pathlib
import time

from rmpe_jax import arguments

_FIT_NMS_HELP = """\
Learn the four parameters of pose NMS: those with the highest COCO AP on annotated images.

RESULTS are poses in COCO's result format before NMS, each with its box and the box's score, as
rmpe eval --nms=none writes them for a detector's boxes. ANNOTATIONS is the COCO keypoint ground
truth of the same images. Do not use the images that you report results on.

OUT gets params.json, searches.json (all values tried and their AP) and heat_maps.png.
"""
_FIT_NMS_EXAMPLES = """\
examples:
  rmpe fit-nms eval/results.json data/coco/annotations/person_keypoints_train2017.json --out nms
  rmpe fit-nms eval/results.json annotations.json --out nms --start alphapose --folds 5
"""
_FIT_PGPG_HELP = """\
Learn from a detector's boxes how boxes deviate from people's boxes in each kind of pose (PGPG), for
box proposals in training: config.data.proposals="atomic", config.data.pgpg_model="OUT/pgpg.npz".

The numbers of atomic poses and of Gaussians are chosen by the likelihood of boxes on held-out
images. OUT gets pgpg.npz, report.md (all numbers tried, and a comparison with simpler models), and,
with matplotlib, atoms.png and offsets.png.
"""
_FIT_PGPG_EXAMPLES = """\
examples:
  rmpe fit-pgpg --out pgpg --data coco:data/coco:train2017 detections.json
  rmpe fit-pgpg --out pgpg --data mpii:data/mpii:train a.json b.json --data lsp:data/lsp c.json
"""
_ABLATE_HELP = """\
Train and evaluate the systems of Table 3 of the RMPE paper, each without one part, for several
seeds. Run the same command again to resume after an interruption.

WORKDIR gets table.md, table.json, bars_*.png and theta.png, updated after each seed, and one folder
per seed with checkpoints, poses and metrics.
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
    parser.add_argument("--out", required=True, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--start",
        default="rmpe",
        metavar="PARAMS",
        help="rmpe (default), paper, alphapose or a params.json: the variant of the rule, and the "
        "values that the search starts from",
    )
    parser.add_argument("--skeleton", default="coco", help="joint set (default: coco)")
    parser.add_argument(
        "--steps",
        type=arguments.two_or_more,
        default=15,
        metavar="N",
        help="values of each parameter per search (default: 15)",
    )
    parser.add_argument(
        "--folds",
        type=arguments.two_or_more,
        metavar="N",
        help="also learn on all of N parts of the images but one, score on that one, and print the "
        "gain over --start with its interval",
    )
    parser.set_defaults(run=_fit_nms)


def _fit_nms(args: argparse.Namespace) -> None:
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.experiments.evaluate import metrics_table
    from rmpe_jax.experiments.fit_nms import cross_fit_nms, fit_nms
    from rmpe_jax.experiments.searches import search_line
    from rmpe_jax.experiments.tables import markdown_table
    from rmpe_jax.pose_nms import load_params
    from rmpe_jax.skeletons import get_skeleton

    use_compilation_cache()
    start = time.monotonic()
    params, skeleton = load_params(args.start), get_skeleton(args.skeleton)
    metrics = fit_nms(
        args.results,
        args.annotations,
        args.out,
        params,
        skeleton,
        steps=args.steps,
        report=lambda search: print(search_line(search, "AP"), flush=True),
    )
    print(f"\n{metrics_table(metrics)}\n\nwrote {args.out} in {time.monotonic() - start:.1f} s")
    if args.folds:
        found = cross_fit_nms(
            args.results, args.annotations, params, skeleton, args.folds, steps=args.steps
        )
        rows = {name: [f"{100 * value:.2f}"] for name, value in found.ap.items()}
        low, high = (100 * limit for limit in found.interval)
        print(f"\n{args.folds} folds:\n\n{markdown_table('', ['AP'], rows)}")
        gain = f"{100 * found.gain:+.2f} [{low:+.2f}, {high:+.2f}]"
        print(f"\nlearned minus start, in points, with its 95 % interval: {gain}")


def add_fit_pgpg(commands: argparse._SubParsersAction) -> None:
    """Add `rmpe fit-pgpg`."""
    parser = arguments.add_command(
        commands,
        "fit-pgpg",
        "learn box proposals for training from a detector's boxes",
        _FIT_PGPG_HELP,
        _FIT_PGPG_EXAMPLES,
    )
    parser.add_argument("--out", required=True, metavar="OUT", help="folder to write")
    parser.add_argument(
        "--data",
        required=True,
        action="append",
        nargs="+",
        metavar=("SPEC", "FILE"),
        help="a dataset as for rmpe prepare, and JSON files of detectors' boxes on its images",
    )
    parser.add_argument(
        "--poses",
        default=[],
        action="append",
        metavar="NPZ",
        help="more poses for the atoms: array 'joints' (n, 16, 2), MPII's joints, -1 if unknown; "
        "they are never held out, so they should not be those of the datasets' people",
    )
    parser.add_argument(
        "--atoms",
        type=arguments.non_negative_int,
        nargs="+",
        metavar="N",
        help="numbers of atoms to try (default: 0 4 8 16 32); 0: one mixture for all poses",
    )
    parser.add_argument(
        "--gaussians",
        type=arguments.positive_int,
        nargs="+",
        metavar="N",
        help="numbers of Gaussians per atom to try (default: 1 2 4 8)",
    )
    parser.add_argument(
        "--min-iou",
        type=arguments.fraction,
        default=0.3,
        metavar="FRACTION",
        help="minimum IoU of a box with its person's box (default: 0.3)",
    )
    parser.add_argument(
        "--min-score",
        type=arguments.fraction,
        default=0.09,
        metavar="FRACTION",
        help="minimum score of a box (default: 0.09, the paper's)",
    )
    parser.add_argument(
        "--seed",
        type=arguments.non_negative_int,
        default=0,
        metavar="N",
        help="seed of the random numbers (default: 0)",
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
        "train and evaluate RMPE without one part at a time",
        _ABLATE_HELP,
        _ABLATE_EXAMPLES,
    )
    parser.add_argument("--config", required=True, metavar="CONFIG", help="FILE or FILE:ARGUMENT")
    parser.add_argument("--workdir", required=True, metavar="WORKDIR", help="folder to write")
    parser.add_argument(
        "--seeds",
        type=arguments.non_negative_int,
        nargs="*",
        metavar="N",
        help="default: the seeds of the config; without a number: only write the table",
    )
    parser.set_defaults(run=_ablate)


def _ablate(args: argparse.Namespace) -> None:
    from rmpe_jax.entry import use_compilation_cache
    from rmpe_jax.experiments.ablation.config import require_same_settings
    from rmpe_jax.experiments.ablation.report import write_report
    from rmpe_jax.experiments.ablation.run import load_ablation, prepare_data, run_seed
    from rmpe_jax.lock import FolderLock

    use_compilation_cache()
    ablation, folder = load_ablation(args.config), pathlib.Path(args.workdir)
    seeds = ablation.seeds if args.seeds is None else args.seeds

    # Commands for different seeds may run at once: they wait for each other where they share files.
    with FolderLock(folder, wait=True):
        require_same_settings(ablation, folder)
        if seeds:
            prepare_data(ablation, folder)
    for seed in seeds:
        with FolderLock(folder / f"seed{seed}"):
            run_seed(ablation, folder, seed)
        with FolderLock(folder, wait=True):
            write_report(ablation, folder)
    with FolderLock(folder, wait=True):
        print(write_report(ablation, folder))
