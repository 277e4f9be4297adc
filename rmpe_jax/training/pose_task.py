"""The task of a pose network: crops of people, heatmaps, OKS AP or PCKh on ground-truth boxes."""

import functools
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8

from rmpe_jax.config import DataConfig, RunConfig, model_spec
from rmpe_jax.data import pipeline
from rmpe_jax.data.resident import load_canvases
from rmpe_jax.data.sources import open_source
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_boxes
from rmpe_jax.evaluation.predictions import PosePredictions, predict_dataset
from rmpe_jax.evaluation.protocol import evaluate
from rmpe_jax.models.spec import require_pose
from rmpe_jax.pgpg.sample import Proposals, open_proposals
from rmpe_jax.processes import in_first_process
from rmpe_jax.skeletons import Skeleton
from rmpe_jax.top_down.cropping import crop_canvases
from rmpe_jax.top_down.prediction import make_predict
from rmpe_jax.training import mesh as meshes
from rmpe_jax.training.objectives import PoseObjective
from rmpe_jax.training.tasks import Scores, Task, named_scores, open_datasets, stream_options

_RESIDENT_KEYS = ("canvas", "canvas_from_crop", "color_gain", "region", "coarseness")


def pose_task(run: RunConfig) -> Task:
    """The task of a run with `model.task="pose"`.

    Raises:
      UserError: the network cannot be built, or the data cannot be used.
    """
    data, spec = run.data, require_pose(model_spec(run))
    model, codec = spec.build()
    datasets = open_datasets(data, spec.skeleton)
    train = tuple(datasets.get(text, text) for text in data.train)
    source = open_source(train, spec.skeleton, data.repeats)
    objective = PoseObjective(codec, run.sstn)
    placed: dict[str, Any] = {"host_keys": objective.batch_keys}
    if data.resident:
        if jax.process_count() > 1:
            raise UserError("config.data.resident works in one process: set it to False")
        source, canvases = load_canvases(
            source, spec.crop, num_threads=data.num_threads, strict=data.strict
        )
        placed = _resident(canvases, spec.input_size, objective)
    dataset = pipeline.train_dataset(
        source,
        skeleton=spec.skeleton,
        crop=spec.crop,
        augmentation=run.augmentation,
        proposals=proposals_of(data, spec.skeleton),
        resident=data.resident,
        **stream_options(run),
    )
    evaluations = [datasets[text] for text in data.evaluate]
    predict = make_predict(model, codec, spec.skeleton)

    def score(variables: Any) -> Scores:
        scores = {}
        for dataset in evaluations:
            predictions = predict_dataset(
                predict,
                variables,
                dataset,
                load_boxes(dataset, "gt"),
                spec.skeleton,
                spec.crop,
                batch_size=-(-run.batch_size // jax.device_count()),
                num_threads=data.num_threads,
            )
            # All processes get the same score, by which they choose the best checkpoint.
            metrics = in_first_process(functools.partial(_metrics, predictions))
            main = "AP" if "AP" in metrics else "PCKh"
            scores |= named_scores(dataset.name, main, metrics)
        return scores

    return Task(
        spec=spec,
        model=model,
        objective=objective,
        dataset=dataset,
        size=f"{len(source):,} people",
        evaluate=score if evaluations else None,
        **placed,
    )


def _metrics(predictions: PosePredictions) -> Scores:
    metrics, _ = evaluate(predictions)
    return metrics


def proposals_of(data: DataConfig, skeleton: Skeleton) -> Proposals:
    """The boxes that people are cropped by in training.

    Raises:
      UserError: the model of "atomic" proposals cannot be used.
    """
    return open_proposals(
        data.proposals, data.pgpg_model, data.patch_prob, skeleton, data.jitter_strength
    )


def _resident(
    canvases: UInt8[np.ndarray, "n h w 3"], input_size: tuple[int, int], objective: PoseObjective
) -> dict[str, Any]:
    """`host_keys` and `complete` of a task that samples its crops on the devices."""
    canvases_there = jax.device_put(canvases, meshes.replicated(meshes.device_mesh()))

    @jax.jit
    def images(canvases, canvas, canvas_from_crop, color_gain, region, coarseness):
        return crop_canvases(
            canvases, canvas, canvas_from_crop, color_gain, region, coarseness, input_size
        )

    def complete(batch: dict[str, jax.Array]) -> dict[str, jax.Array]:
        arguments = [batch[key] for key in _RESIDENT_KEYS]
        rest = {key: batch[key] for key in batch if key not in _RESIDENT_KEYS}
        return rest | {"image": images(canvases_there, *arguments)}

    others = tuple(key for key in objective.batch_keys if key != "image")
    return {"host_keys": (*_RESIDENT_KEYS, *others), "complete": complete}
