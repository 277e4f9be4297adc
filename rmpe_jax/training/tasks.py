"""What a run learns: its network, objective, batches and evaluation."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import grain
import jax

from rmpe_jax.config import DataConfig, RunConfig
from rmpe_jax.config.spec import Spec
from rmpe_jax.data.inspection import inspect_dataset, sample_sizes, summary_table
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset
from rmpe_jax.data.sources import is_prepared
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.training.log import say
from rmpe_jax.training.objectives import Objective

Scores = dict[str, float]
ALLOW_SUSPICIOUS = "config.data.max_suspicious=1.0"  # for messages about labels


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
      host_keys: the part of a batch that is sent to the devices.
      complete: adds there what the objective needs beyond that.
    """

    spec: Spec
    model: nn.Module
    objective: Objective
    dataset: grain.MapDataset
    size: str
    evaluate: Callable[[Any], Scores] | None
    host_keys: tuple[str, ...]
    complete: Callable[[dict[str, jax.Array]], dict[str, jax.Array]] = lambda batch: batch


def open_datasets(data: DataConfig, skeleton: Skeleton | None) -> dict[str, PoseDataset]:
    """The datasets to train and evaluate on by spec; each is read and its labels inspected once.

    Prepared folders are not among them: `rmpe prepare` has inspected their labels. If people to
    train on are skipped or suspicious, a table on stderr counts them.

    Args:
      data: names the datasets.
      skeleton: the joints that are trained; None if only boxes are.

    Raises:
      UserError: a dataset is unusable, or more than the fraction `data.max_suspicious` of its
        labels cannot belong to the images.
    """
    train = [s for s in dict.fromkeys(data.train) if not (skeleton and is_prepared(s))]
    datasets = {spec: open_dataset(spec) for spec in dict.fromkeys((*train, *data.evaluate))}
    inspections = {
        spec: inspect_dataset(
            dataset,
            skeleton if spec in train or skeleton is None else dataset.skeleton,
            sample_sizes(dataset),
        )
        for spec, dataset in datasets.items()
    }
    if not all(inspections[spec].all_used for spec in train):
        say(summary_table([(inspections[i].name, inspections[i].rows()) for i in train]) + "\n")
    for inspection in inspections.values():
        inspection.require_few(data.max_suspicious, ALLOW_SUSPICIOUS)
        inspection.warn()
    return datasets


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
