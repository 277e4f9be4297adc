"""Start-up: seconds of `rmpe --help` and of `rmpe predict` of one photo, each in a fresh process.

  python benchmarks/startup.py [--image PHOTO] [--repeats 5]

Prints one JSON line. `help_seconds` and `predict_seconds` are medians, with the fastest and the
slowest run beside them; `cpu_seconds` is the median processor time of predict. Programs are kept
in a cache; `first_seconds` is the run that fills it. `programs` counts what JAX compiles or loads
from the cache, and `compiled` what is not in it.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import statistics
import tempfile

import matplotlib.cbook
from fresh_process import Ended, run_python
from timing import spread

from rmpe_jax.arguments import positive_int

# Runs `rmpe` and prints two counts as its last line.
_COUNTED = """
import collections, sys
import jax.monitoring
from rmpe_jax.cli import main
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: counts.update([name.split("/")[-1]]))
status = main(sys.argv[1:])
print(counts["compile_requests_use_cache"], counts["cache_hits"])
sys.exit(status)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    portrait = matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False)
    parser.add_argument("--image", default=portrait, help="default: a portrait of matplotlib's")
    parser.add_argument("--repeats", type=positive_int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def rmpe(*arguments: str, program: tuple[str, ...] = ("-m", "rmpe_jax.cli")) -> Ended:
            return run_python(*program, *arguments, cache=f"{folder}/cache")

        def predict(out: str, **options: tuple[str, ...]) -> Ended:
            return rmpe("predict", args.image, "--out", f"{folder}/{out}", **options)

        first = predict("first")
        # They take turns, so that a busy machine slows both.
        runs = [(rmpe("--help"), predict(f"{index}")) for index in range(args.repeats)]
        counted = predict("counted", program=("-c", _COUNTED))
        people = json.loads(pathlib.Path(folder, "first", "poses.jsonl").read_text())["people"]
    requests, hits = map(int, counted.printed.split()[-2:])
    helps, predictions = zip(*runs, strict=True)
    result = {
        "benchmark": "startup",
        "cores": os.cpu_count(),
        "jax": importlib.metadata.version("jax"),
        "people": len(people),
        **spread("help_seconds", [done.wall for done in helps]),
        **spread("predict_seconds", [done.wall for done in predictions]),
        "cpu_seconds": round(statistics.median(done.cpu for done in predictions), 2),
        "first_seconds": round(first.wall, 2),
        "programs": requests,
        "compiled": requests - hits,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
