"""Everything in 6 to 15 minutes: draw scenes, train, evaluate, and find poses in a photo.

python -m rmpe_jax.experiments.demo --out demo
"""

import pathlib
import sys
import time

from rmpe_jax.arguments import Parser
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.experiments.evaluate import evaluate_pose_model, metrics_table
from rmpe_jax.experiments.scenes import draw_scenes
from rmpe_jax.experiments.stages import load_config
from rmpe_jax.files import write_json
from rmpe_jax.progress import duration

TRAIN_SEEDS = range(0, 2500)
VAL_SEEDS = range(1_000_000, 1_000_200)  # not in TRAIN_SEEDS
CONFIG = pathlib.Path(__file__).parents[2] / "configs/synthetic.py"


def demo(out: pathlib.Path) -> None:
    """Writes the demo to the folder `out`. Run again, it resumes.

    The results are `ap.json`, `learning_curves.png`, `people.png`, and `photo/`: the poses that the
    built-in networks find in a photo. Scenes, run and evaluations stay in `out` too.
    """
    from rmpe_jax.model_io.pose_model import load_pose_model
    from rmpe_jax.training.loop import train
    from rmpe_jax.visualize.curves import learning_curves

    begin = time.monotonic()
    draw_scenes(out / "train", TRAIN_SEEDS)
    draw_scenes(out / "val", VAL_SEEDS)
    config = load_config(f"{CONFIG}:{out}")
    train(config, out / "run")
    learning_curves(out / "run/metrics.jsonl", out / "learning_curves.png")

    model = load_pose_model(out / "run", "last")
    rows = {}
    boxes = {"ground-truth boxes": "gt", "imperfect boxes": str(out / "val/detections.json")}
    for title, source in boxes.items():
        folder = out / "eval" / title.replace(" ", "_")
        data = f"coco:{out / 'val'}"
        rows[title] = evaluate_pose_model(model, data, source, folder, flip_test=True)
    (out / "eval/ground-truth_boxes/people.png").replace(out / "people.png")
    write_json(out / "ap.json", rows)
    print(f"\nOKS AP on {len(VAL_SEEDS)} unseen scenes\n\n{metrics_table(rows)}\n")
    predict_photo(out / "photo")
    print(f"Done in {duration(round(time.monotonic() - begin))}. Results:")
    for name in ("ap.json", "learning_curves.png", "people.png", "photo/report.html"):
        print(f"  {out / name}")


def predict_photo(out: pathlib.Path) -> None:
    """Does `rmpe predict PHOTO --detector whole --draw --report` with a photo from Matplotlib.

    The photo is a portrait of Grace Hopper, in the public domain. It shows one person, so the whole
    image is the box.
    """
    import matplotlib.cbook

    from rmpe_jax.inference.estimator import PoseEstimator
    from rmpe_jax.predict.inputs import find_inputs
    from rmpe_jax.predict.run import JOURNAL, predict_files, prepare_output_folder

    photo = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    estimator = PoseEstimator.from_checkpoint("builtin", detector="whole")
    inputs = find_inputs([str(photo)])
    (out / JOURNAL).unlink(missing_ok=True)  # from an earlier demo
    prepare_output_folder(out, {})
    predict_files(inputs, out, estimator, draw=True, report=True)


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=pathlib.Path("demo"),
        metavar="OUT",
        help="folder to write (default: demo)",
    )
    args = parser.parse_args()
    use_compilation_cache()
    return run(lambda: demo(args.out))


if __name__ == "__main__":
    sys.exit(main())
