"""`rmpe` with the network "bright" and a detector of bright spots; see tests/bright.py."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import bright

from rmpe_jax import cli
from rmpe_jax.inference import estimator

if __name__ == "__main__":
    bright.register(setattr)
    estimator.open_detector = lambda text: lambda image, name: bright.find_spots(image)
    sys.exit(cli.main(sys.argv[1:]))
