"""Checks of a config before anything is built: one line that names the key and what it must be."""

import dataclasses
import difflib
import re
from typing import Any

import ml_collections

from rmpe_jax.codecs.heatmap import ALIGNMENTS, DECODERS, LOSSES
from rmpe_jax.config.sections import CodecConfig
from rmpe_jax.errors import UserError
from rmpe_jax.models import SPPE_NAMES
from rmpe_jax.models.localization import LOCALIZATION_NAMES
from rmpe_jax.models.rtmpose import RTMPOSE_MODELS
from rmpe_jax.models.vitpose import ATTENTIONS, EXPERTS
from rmpe_jax.ops.geometry import view_size
from rmpe_jax.pgpg.sample import MODES
from rmpe_jax.skeletons import SKELETONS

TASKS = ("pose", "detection")
OPTIMIZERS = ("adam", "adamw", "rmsprop")
SCHEDULES = ("constant", "cosine", "step")
GUIDANCES = ("autodiff", "differences")
VIEW_DECODERS = ("crop", "view")
SHARDINGS = ("replicated", "fsdp")


def validate(config: ml_collections.ConfigDict) -> None:
    """Raises a UserError that names the first key whose value is invalid."""
    for key in ("batch_size", "grad_accumulation", "log_every", "checkpoint_every"):
        _require(config[key] >= 1, key, config[key], "at least 1")
    for key in ("total_steps", "evaluate_every"):
        _require(config[key] >= 0, key, config[key], "0 or more")
    _require(0 <= config.seed < 2**32, "seed", config.seed, "0 to 2**32 - 1")
    steps = config.profile_steps
    ordered = not steps or (len(steps) == 2 and _positive_ints(steps) and steps[0] <= steps[1])
    _require(ordered, "profile_steps", steps, "empty, or (first, last), steps from 1")
    _require(
        config.batch_size % config.grad_accumulation == 0,
        "grad_accumulation",
        config.grad_accumulation,
        f"a divisor of batch_size, {config.batch_size}",
    )
    _require_known("sharding", config.sharding, SHARDINGS)
    _validate_model(config.model, config.codec)
    _validate_transformer(config.transformer)
    _validate_without_heatmaps(config)
    _validate_sstn(config.sstn, config.model)
    aligned = config.codec.alignment == "center" or not config.sstn.enabled
    wanted = "'center' with sstn.enabled, whose theta is one for crops and heatmaps"
    _require(aligned, "codec.alignment", config.codec.alignment, wanted)
    _validate_data(config.data, config.augmentation)
    _validate_detection(config)
    _validate_optim(config.optim, config.model.name)


def _validate_model(model: ml_collections.ConfigDict, codec: ml_collections.ConfigDict) -> None:
    _require_known("model.task", model.task, TASKS)
    _require_known("model.name", model.name, SPPE_NAMES)
    if not re.fullmatch(r"unnamed_[1-9]\d*", model.skeleton):  # see get_skeleton
        _require_known("model.skeleton", model.skeleton, tuple(SKELETONS))
    _require_known("model.dtype", model.dtype, ("float32", "bfloat16"))
    _require_known("codec.loss", codec.loss, LOSSES)
    _require_known("codec.decode", codec.decode, DECODERS)
    _require_known("codec.alignment", codec.alignment, ALIGNMENTS)
    size = model.input_size
    wanted = "(height, width), whole numbers from 1"
    _require(len(size) == 2 and _positive_ints(size), "model.input_size", size, wanted)
    wanted = "three numbers, for R, G and B"
    _require(_numbers(model.mean, 3), "model.mean", model.mean, wanted)
    std = model.std
    _require(_numbers(std, 3) and min(std) > 0, "model.std", std, f"{wanted}, more than 0")
    _require(codec.sigma > 0, "codec.sigma", codec.sigma, "more than 0")
    _require(codec.blur_sigma >= 0, "codec.blur_sigma", codec.blur_sigma, "0 or more")


def _validate_transformer(transformer: ml_collections.ConfigDict) -> None:
    epsilon, expert = transformer.norm_epsilon, transformer.expert
    _require(epsilon > 0, "transformer.norm_epsilon", epsilon, "more than 0")
    valid = 0 <= expert < len(EXPERTS)
    _require(valid, "transformer.expert", expert, f"0 to {len(EXPERTS) - 1}: {', '.join(EXPERTS)}")
    drop = transformer.drop_path
    _require(0 <= drop < 1, "transformer.drop_path", drop, "at least 0 and less than 1")
    _require_known("transformer.attention", transformer.attention, ATTENTIONS)


def _validate_sstn(sstn: ml_collections.ConfigDict, model: ml_collections.ConfigDict) -> None:
    _require_known("sstn.localization", sstn.localization, LOCALIZATION_NAMES)
    _require_known("sstn.guidance", sstn.guidance, GUIDANCES)
    _require_known("sstn.decode", sstn.decode, VIEW_DECODERS)
    for key in (
        "localization_factor",
        "localization_warmup",
        "parallel_weight",
        "placement_weight",
    ):
        _require(sstn[key] >= 0, f"sstn.{key}", sstn[key], "0 or more")
    _validate_context(sstn, model.input_size)
    step = sstn.difference_step
    _require(0 < step < 1, "sstn.difference_step", step, "more than 0 and less than 1")
    usable = not sstn.localization_weights or (sstn.enabled and sstn.localization == "resnet18")
    wanted = "empty, unless sstn.enabled with the localization 'resnet18'"
    _require(usable, "sstn.localization_weights", sstn.localization_weights, wanted)
    if not sstn.parallel:
        return
    _require_known("sstn.parallel", sstn.parallel, SPPE_NAMES)
    _require(sstn.enabled, "sstn.parallel", sstn.parallel, "empty without sstn.enabled")
    # It is never trained here, so it must be trained already.
    trained = sstn.parallel_from or (model.init_from and sstn.parallel == model.name)
    wanted = "the workdir of a run of sstn.parallel; only model.name's own may come by init_from"
    _require(bool(trained), "sstn.parallel_from", sstn.parallel_from, wanted)


def _validate_context(sstn: ml_collections.ConfigDict, input_size: tuple[int, int]) -> None:
    """The view must be a window in the middle of the crop, on pixels of the crop."""
    context = sstn.context
    _require(context >= 1, "sstn.context", context, "1 or more")
    _require(context == 1 or sstn.enabled, "sstn.context", context, "1 without sstn.enabled")
    if context == 1:
        return
    sides = zip(input_size, view_size(input_size, context), strict=True)
    # Sides of 128 pixels may have the context 1.3333.
    fits = all(
        view > 0 and view % 2 == full % 2 == 0 and abs(view * context - full) < 0.01
        for full, view in sides
    )
    wanted = f"1, or divide model.input_size={input_size} into even numbers of pixels"
    _require(fits, "sstn.context", context, wanted)


def _validate_without_heatmaps(config: ml_collections.ConfigDict) -> None:
    """RTMPose has no heatmaps: nothing can warp them, and `codec` has no effect."""
    wanted = "a network with heatmaps, which SDTN and detectors need"
    network, parallel = config.model.name, config.sstn.parallel
    _require(parallel not in RTMPOSE_MODELS, "sstn.parallel", parallel, wanted)
    if network not in RTMPOSE_MODELS:
        return
    needed = config.sstn.enabled or config.model.task == "detection"
    _require(not needed, "model.name", network, wanted)
    for field in dataclasses.fields(CodecConfig):
        value, wanted = config.codec[field.name], f"{field.default!r}: {network} has no heatmaps"
        _require(value == field.default, f"codec.{field.name}", value, wanted)


def _validate_data(data: ml_collections.ConfigDict, augment: ml_collections.ConfigDict) -> None:
    for key in ("train", "evaluate"):
        texts = all(isinstance(spec, str) for spec in data[key])
        _require(texts, f"data.{key}", data[key], "strings such as 'coco:FOLDER:SPLIT'")
    _require(
        len(data.repeats) in (0, len(data.train)) and _positive_ints(data.repeats),
        "data.repeats",
        data.repeats,
        "empty, or a whole number from 1 for each of data.train",
    )
    _require(data.padding > 0, "data.padding", data.padding, "more than 0")
    _require_known("data.proposals", data.proposals, MODES)
    wanted = "the pgpg.npz that rmpe fit-pgpg writes, for atomic proposals"
    has_model = data.proposals != "atomic" or bool(data.pgpg_model)
    _require(has_model, "data.pgpg_model", data.pgpg_model, wanted)
    strength = data.jitter_strength
    _require(0 < strength <= 1, "data.jitter_strength", strength, "more than 0, at most 1")
    for key in ("patch_prob", "max_suspicious"):
        _require(0 <= data[key] <= 1, f"data.{key}", data[key], "from 0 to 1")
    for key, least in (("num_threads", 1), ("prefetch", 1), ("num_workers", 0)):
        _require(data[key] >= least, f"data.{key}", data[key], f"at least {least}")
    for key in ("flip_prob", "rotation_prob", "half_body_prob", "cut_prob"):
        _require(0 <= augment[key] <= 1, f"augmentation.{key}", augment[key], "from 0 to 1")
    scale = augment.scale
    _require(0 <= scale < 1, "augmentation.scale", scale, "at least 0 and less than 1")
    for key in ("rotation_degrees", "translation"):
        _require(augment[key] >= 0, f"augmentation.{key}", augment[key], "0 or more")
    coarseness = augment.max_coarseness
    _require(coarseness >= 1, "augmentation.max_coarseness", coarseness, "at least 1")
    gain = augment.color_gain
    valid = _numbers(gain, 2) and 0 <= gain[0] <= gain[1]
    _require(valid, "augmentation.color_gain", gain, "(low, high)")


def _validate_detection(config: ml_collections.ConfigDict) -> None:
    detection, files = config.detection, config.data.detections
    _require(
        len(files) in (0, len(config.data.train)),
        "data.detections",
        files,
        "empty, or a string, which may be empty, for each of data.train",
    )
    if config.model.task != "detection":
        _require(not files, "data.detections", files, "empty without model.task='detection'")
        return
    _require(not config.data.resident, "data.resident", True, "False with model.task='detection'")
    _require(not config.sstn.enabled, "sstn.enabled", True, "False with model.task='detection'")
    size = detection.test_size
    wanted = "(height, width), whole numbers from 1"
    _require(len(size) == 2 and _positive_ints(size), "detection.test_size", size, wanted)
    _require(detection.max_boxes >= 1, "detection.max_boxes", detection.max_boxes, "at least 1")
    for key in ("bbox_weight", "stretch"):
        _require(detection[key] >= 0, f"detection.{key}", detection[key], "0 or more")
    for key in ("mosaic_prob", "min_visible"):
        _require(0 <= detection[key] <= 1, f"detection.{key}", detection[key], "from 0 to 1")
    scale = detection.scale
    valid = _numbers(scale, 2) and 0 < scale[0] <= scale[1]
    _require(valid, "detection.scale", scale, "(low, high), more than 0")


def _validate_optim(optim: ml_collections.ConfigDict, network: str) -> None:
    _require_known("optim.name", optim.name, OPTIMIZERS)
    _require_known("optim.schedule", optim.schedule, SCHEDULES)
    rate = optim.learning_rate
    _require(rate > 0, "optim.learning_rate", rate, "more than 0")
    for key in ("warmup_steps", "weight_decay", "clip_norm", "backbone_factor"):
        _require(optim[key] >= 0, f"optim.{key}", optim[key], "0 or more")
    _require(
        optim.weight_decay == 0 or optim.name == "adamw",
        "optim.weight_decay",
        optim.weight_decay,
        f"0 with {optim.name}: only adamw uses it",
    )
    layer_decay = optim.layer_decay
    _require(0 < layer_decay <= 1, "optim.layer_decay", layer_decay, "more than 0 and at most 1")
    usable = layer_decay == 1 or network.startswith("vitpose")
    _require(usable, "optim.layer_decay", layer_decay, f"1 with {network}: ViTPose has such layers")
    steps = optim.milestones
    valid = _positive_ints(steps) and tuple(sorted(steps)) == steps
    _require(valid, "optim.milestones", steps, "steps in ascending order")
    _require(
        bool(steps) == (optim.schedule == "step"),
        "optim.milestones",
        steps,
        "empty, unless optim.schedule is 'step', which needs them",
    )
    try:
        re.compile(optim.frozen)
    except re.error as error:
        wanted = f"a regular expression ({error})"
        _require(False, "optim.frozen", optim.frozen, wanted)
    decay = optim.ema_decay
    _require(0 <= decay < 1, "optim.ema_decay", decay, "at least 0 and less than 1")


def _positive_ints(values: tuple) -> bool:
    return all(isinstance(value, int) and value >= 1 for value in values)


def _numbers(values: tuple, count: int) -> bool:
    return len(values) == count and all(isinstance(value, int | float) for value in values)


def _require_known(key: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        near = difflib.get_close_matches(str(value), choices, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UserError(f"config.{key}={value!r} is unknown: {hint}use {', '.join(choices)}")


def _require(valid: bool, key: str, value: Any, wanted: str) -> None:
    if not valid:
        raise UserError(f"config.{key}={value!r} is invalid: it must be {wanted}")
