"""What a run can be configured with: every key, its default and its meaning.

Files in `configs/` and the command line change these values on a `ConfigDict` of the same keys (see
`rmpe_jax.config.default_config`). Functions take the section they need, never the whole config.
"""

import dataclasses

from rmpe_jax.data.augment import Augmentation
from rmpe_jax.models.vitpose import TransformerOptions
from rmpe_jax.pgpg.sample import Mode


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and its input."""

    task: str = "pose"  # or "detection": people's boxes, see docs/detectors.md
    name: str = "tinypose_s"
    skeleton: str = "coco"
    input_size: tuple[int, int] = (256, 192)  # height, width
    dtype: str = "float32"  # of the arithmetic; parameters are float32
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)  # of RGB in 0..1, ImageNet's
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    backbone_weights: str = ""  # a backbone to start from, see docs/interop.md
    init_from: str = ""  # trained network to start from: a workdir, a file, "builtin", "hf:…"


@dataclasses.dataclass(frozen=True)
class SstnConfig:
    """The symmetric spatial transformer network, see docs/sstn.md."""

    enabled: bool = False
    localization: str = "small"  # or the paper's "resnet18"
    localization_weights: str = ""  # torchvision's ResNet-18 to start "resnet18" from
    localization_factor: float = 1.0  # on the learning rate of the localization network
    localization_warmup: int = 0  # steps over which this factor rises from 0
    parallel: str = ""  # name of the parallel SPPE's network; empty: none
    parallel_from: str = ""  # its weights, named as in model.init_from; empty: model.init_from
    parallel_weight: float = 1.0  # of its loss
    placement_weight: float = 0.0  # of views' distance from well-placed crops; 0 in the paper
    guidance: str = "autodiff"  # what theta learns from: gradients, or "differences" of a loss
    difference_step: float = 0.25  # of these differences, in normalized coordinates of the crop
    decode: str = "crop"  # heatmaps after the SDTN, or "view": before it, and points are mapped
    context: float = 1.0  # sides of the crop in sides of the view that the SPPE sees


@dataclasses.dataclass(frozen=True)
class CodecConfig:
    """How keypoints are written into heatmaps and read from them; not for RTMPose."""

    loss: str = "mse"
    sigma: float = 2.0  # heatmap pixels
    integer_center: bool = False
    decode: str = "dark"
    alignment: str = "center"  # of heatmaps with the crop; AlphaPose's "first_pixel"; "udp"
    blur_sigma: float = 0.0  # of the smoothing in "dark" and "dark_udp", heatmap pixels; 0: sigma


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Datasets, and how people are cropped from their images."""

    train: tuple[str, ...] = ()  # specs such as "coco:FOLDER:SPLIT", see docs/data.md
    repeats: tuple[int, ...] = ()  # how often each of them comes in an epoch; empty: once
    evaluate: tuple[str, ...] = ()
    detections: tuple[str, ...] = ()  # a file for each of train, or "": a detector's soft labels
    padding: float = 1.25
    proposals: Mode = "none"  # boxes to crop people by: "jitter", "global", "atomic"
    pgpg_model: str = ""  # of rmpe fit-pgpg, for "atomic", see docs/pgpg.md
    jitter_strength: float = 1.0  # of "jitter": 1 moves by up to 1/3, scales by 1/2 to 2
    patch_prob: float = 0.0  # chance of a part of the person's box instead
    resident: bool = False  # decode all people once, into the memory of the devices
    strict: bool = False  # fail on the first unreadable image
    max_suspicious: float = 0.2  # fraction of labels that may not fit their image, see docs/data.md
    num_threads: int = 2
    num_workers: int = 0  # processes beside the threads
    prefetch: int = 8


@dataclasses.dataclass(frozen=True)
class DetectionConfig:
    """Used when `model.task` is "detection"."""

    test_size: tuple[int, int] = (320, 320)  # height, width of evaluated images
    max_boxes: int = 64  # people that an image can have
    bbox_weight: float = 2.5  # of the loss of boxes; that of centers is 1
    mosaic_prob: float = 0.5
    scale: tuple[float, float] = (0.6, 2.0)
    stretch: float = 0.2
    min_visible: float = 0.3


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its schedule."""

    name: str = "adam"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_steps: int = 0
    milestones: tuple[int, ...] = ()  # steps at which the "step" schedule divides the rate by ten
    weight_decay: float = 0.0  # adamw
    clip_norm: float = 0.0  # of the gradient; 0: none
    backbone_factor: float = 1.0  # on the learning rate of the submodule "backbone"
    layer_decay: float = 1.0  # ViTPose: factor on the learning rate, per layer before the head
    frozen: str = ""  # parameters whose path matches this regular expression are not trained
    ema_decay: float = 0.0  # of the averaged parameters that are evaluated; 0: none


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A whole run."""

    seed: int = 0
    total_steps: int = 1000
    batch_size: int = 32  # of all devices and processes together
    grad_accumulation: int = 1  # parts of a batch that are processed one after the other
    sharding: str = "replicated"  # the state on every device; "fsdp": divided, see docs/scaling.md
    log_every: int = 50
    checkpoint_every: int = 500
    evaluate_every: int = 500  # and at the end; 0: only at the end
    profile_steps: tuple[int, ...] = ()  # (first, last) step to profile; empty: none
    model: ModelConfig = ModelConfig()
    transformer: TransformerOptions = dataclasses.field(default_factory=TransformerOptions)
    sstn: SstnConfig = SstnConfig()
    codec: CodecConfig = CodecConfig()
    data: DataConfig = DataConfig()
    augmentation: Augmentation = dataclasses.field(default_factory=Augmentation)
    detection: DetectionConfig = DetectionConfig()
    optim: OptimConfig = OptimConfig()
