"""What a run learns: its network, objective, batches and evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import grain
import jax

from rmpe_jax.config import RunConfig
from rmpe_jax.config.spec import Spec
from rmpe_jax.training.objectives import Objective

Scores = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Task:
    """The part of a run that depends on what is learned.

    Attributes:
      spec: of the network.
      model: the network.
      objective: its loss.
      dataset: element i is this process's part of batch i.
      size: how much there is to learn from, in words.
      evaluate: variables -> metrics named `eval/<dataset>/<metric>`; the first is the score that
        the best checkpoint is chosen by, the greater the better. None without data to evaluate on.
    """

    spec: Spec
    model: nn.Module
    objective: Objective
    dataset: grain.MapDataset
    size: str
    evaluate: Callable[[Any], Scores] | None


def stream_options(run: RunConfig) -> dict[str, Any]:
    """What both kinds of input pipelines take."""
    return {
        "batch_size": run.batch_size,
        "seed": run.seed,
        "strict": run.data.strict,
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
    }


def named_scores(dataset: str, main: str, metrics: Scores) -> Scores:
    """The metrics under the name of their dataset, `main` first."""
    rest = {name: value for name, value in metrics.items() if name != main}
    ordered = {main: metrics[main], **rest}
    return {f"eval/{dataset}/{name}": float(value) for name, value in ordered.items()}
