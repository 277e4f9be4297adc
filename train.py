"""Train a pose estimator.

  python train.py --config=configs/synthetic.py --workdir=runs/synthetic
  python train.py --config=configs/synthetic.py --workdir=runs/small --config.batch_size=16

Run the same command again to go on after an interruption.
"""

from absl import app, flags
from ml_collections import config_flags

from rmpe_jax.entry import parse_flags, run, use_compilation_cache

_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run: checkpoints and metrics.", required=True
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, when several processes train together."
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")
config_flags.DEFINE_config_file("config", None, "The experiment, a file of configs/.")
flags.mark_flag_as_required("config")


def main(argv: list[str]) -> int:
    del argv

    def train() -> None:
        from rmpe_jax.training.loop import train
        from rmpe_jax.training.mesh import join_processes

        use_compilation_cache()
        if _COORDINATOR.value:
            join_processes(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
        train(flags.FLAGS.config, _WORKDIR.value)

    return run(train)


if __name__ == "__main__":
    app.run(main, flags_parser=parse_flags)
