"""Train a pose network or a detector.

  rmpe train --config=configs/synthetic.py --workdir=runs/synthetic
  rmpe train --config=configs/synthetic.py --workdir=runs/small --config.batch_size=16

Run the same command again to resume after an interruption. `python train.py` is the same.
"""

from absl import flags
from ml_collections import config_flags

from rmpe_jax.cli import process_flags
from rmpe_jax.entry import run_app, use_compilation_cache

_WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, for checkpoints and metrics; or an address such as gs://BUCKET/RUN.",
    required=True,
)
flags.adopt_module_key_flags(process_flags)
config_flags.DEFINE_config_file(
    "config", None, "FILE or FILE:ARGUMENT, such as a file of configs/."
)
flags.mark_flag_as_required("config")


def main() -> None:
    """Runs the command line and exits."""
    run_app(train_by_flags, __name__)


def train_by_flags() -> None:
    """Trains with the parsed flags."""
    from rmpe_jax.training.loop import train

    use_compilation_cache()
    process_flags.join_by_flags()
    train(flags.FLAGS.config, _WORKDIR.value or "")
