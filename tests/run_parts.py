"""The parts of a training run, built from its config as `training.loop` does, without data."""

from typing import Any, NamedTuple

from rmpe_jax.config import model_spec, parse_config
from rmpe_jax.training.mesh import Layout
from rmpe_jax.training.objectives import DetectionObjective, PoseObjective
from rmpe_jax.training.optimizers import build_optimizer, learning_rate
from rmpe_jax.training.stages import start_from
from rmpe_jax.training.state import TrainState, init_state, init_variables
from rmpe_jax.training.step import make_train_step


class Parts(NamedTuple):
    model: Any
    codec: Any
    objective: Any
    optimizer: Any
    step: Any


def parts(config, layout: Layout | None = None) -> Parts:
    run = parse_config(config)
    model, codec = model_spec(run).build()
    if run.model.task == "pose":
        objective = PoseObjective(codec, run.sstn)
    else:
        objective = DetectionObjective(codec, run.detection.bbox_weight)
    optimizer = build_optimizer(run.optim, run.total_steps, run.sstn)
    step = make_train_step(
        model,
        objective,
        optimizer,
        frozen=run.optim.frozen,
        ema_decay=run.optim.ema_decay,
        grad_accumulation=run.grad_accumulation,
        layout=layout,
    )
    return Parts(model, codec, objective, optimizer, step)


def network(config) -> tuple[Any, Any]:
    """The model and its codec."""
    return model_spec(parse_config(config)).build()


def start(config) -> TrainState:
    """The state at step 0, before weights of an earlier run."""
    run, built = parse_config(config), parts(config)
    variables = init_variables(
        model_spec(run),
        built.model,
        run.seed,
        backbone_weights=run.model.backbone_weights,
        localization_weights=run.sstn.localization_weights,
    )
    return init_state(variables, built.optimizer, run.optim)


def resumed(config, state: TrainState) -> TrainState:
    """`state` with the weights of the earlier run that the config names."""
    run = parse_config(config)
    return start_from(state, model_spec(run), run.model.init_from, run.sstn.parallel_from)


def rate(config):
    """The learning rate as a function of the step."""
    run = parse_config(config)
    return learning_rate(run.optim, run.total_steps)
