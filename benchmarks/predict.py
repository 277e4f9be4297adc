"""Pictures per second of `rmpe predict` on a folder, with and without the start of the process.

  python benchmarks/predict.py [--images=FOLDER] [--scenes=32] [--repeats=3]

Prints one JSON line. Without `--images` the pictures are drawn scenes of 480x640. Detector and pose
network are the built-in ones. `command_per_s` is the whole command in a fresh process, whose
programs an earlier run, of `first_seconds`, has put into the compilation cache. `pictures_per_s` is
what the command does from the first picture read to the last result written, in one process whose
programs have been loaded. Both are medians, with the slowest and the fastest run beside them.
`peak_mb` is the most memory that a run of the command has used.
"""

import argparse
import json
import os
import pathlib
import resource
import sys
import tempfile

from fresh_process import peak_megabytes, run_python
from machine import cores
from timing import spread, timed

from rmpe_jax.arguments import positive_int
from rmpe_jax.data.synthetic import write_coco_folder
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.inference.estimator import PoseEstimator
from rmpe_jax.predict.inputs import find_inputs
from rmpe_jax.predict.run import predict_files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=pathlib.Path, help="folder; default: drawn scenes")
    parser.add_argument("--scenes", type=positive_int, default=32, help="how many are drawn")
    parser.add_argument("--repeats", type=positive_int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, images = pathlib.Path(name), args.images
        if images is None:
            write_coco_folder(folder / "scenes", range(args.scenes), (480, 640))
            images = folder / "scenes/images"
        result = measure(images, folder, args.repeats)
    print(json.dumps({"benchmark": "predict", "cores": cores(), **result}))


def measure(images: pathlib.Path, folder: pathlib.Path, repeats: int) -> dict[str, float]:
    """Rates of the command and of its work alone; results and programs are put into a folder."""
    os.environ["JAX_COMPILATION_CACHE_DIR"] = cache = str(folder / "cache")

    def command(out: str) -> float:
        arguments = ("predict", str(images), "--out", str(folder / out))
        return run_python("-m", "rmpe_jax.cli", *arguments, cache=cache).wall

    first = command("first")
    commands = [command(f"{index}") for index in range(repeats)]
    peak = peak_megabytes(resource.RUSAGE_CHILDREN)

    use_compilation_cache()
    estimator, inputs = PoseEstimator.from_checkpoint(), find_inputs([str(images)])
    summary = predict_files(inputs, folder, estimator)
    works = [timed(lambda: predict_files(inputs, folder, estimator)) for _ in range(repeats)]
    return {
        "pictures": summary.images,
        "people": summary.people,
        **spread("pictures_per_s", [summary.images / work.wall for work in works]),
        "cpu_seconds": round(min(work.cpu for work in works) / summary.images, 4),
        **spread("command_per_s", [summary.images / wall for wall in commands]),
        "first_seconds": round(first, 2),
        "peak_mb": peak,
    }


if __name__ == "__main__":
    sys.exit(run(main))
