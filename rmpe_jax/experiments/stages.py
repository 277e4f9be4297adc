"""Trains several stages, one after the other. Run again, it resumes.

  python -m rmpe_jax.experiments.stages configs/synthetic.py:demo=demo/run \\
    configs/synthetic_sstn.py:demo=demo/sstn
"""

import pathlib
import runpy
import sys

import ml_collections

from rmpe_jax.arguments import Parser
from rmpe_jax.entry import run, use_compilation_cache
from rmpe_jax.errors import UserError


def run_stages(stages: list[str]) -> None:
    """Trains each stage to its end.

    Args:
      stages: CONFIG=WORKDIR, with CONFIG as for `rmpe train --config`.

    Raises:
      UserError: a stage is not of this form, or cannot be trained. All configs are checked before
        the first stage is trained.
    """
    from rmpe_jax.config import parse_config
    from rmpe_jax.training.loop import train

    runs = [_parse(stage) for stage in stages]
    for config, _ in runs:
        parse_config(config)
    for config, workdir in runs:
        print(f"{workdir}:", file=sys.stderr)
        train(config, workdir)


def load_config(spec: str) -> ml_collections.ConfigDict:
    """The config of a file, given as FILE or FILE:ARGUMENT.

    Raises:
      UserError: there is no such file, or it has no function `get_config` that returns a config.
    """
    path, _, argument = spec.partition(":")
    if not pathlib.Path(path).is_file():
        raise UserError(f"{path}: there is no such config file; name one of configs/")
    get_config = runpy.run_path(path).get("get_config")
    if get_config is None:
        raise UserError(f"{path}: it has no function get_config; name a file of configs/")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, ml_collections.ConfigDict):
        raise UserError(
            f"{path}: get_config does not return a ConfigDict; see configs/synthetic.py"
        )
    return config


def _parse(stage: str) -> tuple[ml_collections.ConfigDict, str]:
    spec, equals, workdir = stage.rpartition("=")
    if not equals or not workdir:
        raise UserError(
            f"{stage}: it must be CONFIG=WORKDIR, such as configs/synthetic.py:demo=demo/run"
        )
    return load_config(spec), workdir


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="+", metavar="CONFIG=WORKDIR")
    args = parser.parse_args()
    use_compilation_cache()
    return run(lambda: run_stages(args.stages))


if __name__ == "__main__":
    sys.exit(main())
