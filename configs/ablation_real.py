"""The ablation on real images, from `builtin-small`.

  rmpe ablate --config=configs/ablation_real.py:FOLDER,labels --workdir=ablation_real

FOLDER has `coco/`, `mpii/` and `lsp_extended/` as described in docs/data.md, with CenterNet's boxes
of COCO and MPII in `detections/` beside the images. `labels` has COCO's people with a teacher's
labels, as for configs/pose_movenet.py.

The first stage continues `builtin-small` with smaller crops and people's own boxes: it has
learned from proposals already. It also learns head top and neck, which MPII's metric needs and COCO
lacks. COCO val2017 is scored by AP and MPII valid by mAP, both in CenterNet's boxes. PGPG is fitted
to boxes on the training images, and pose NMS to poses on COCO's images that `rmpe label` held out.

The results in docs/ablation.md are of `litepose_effnet0_s` of commit 0d3370a. With `builtin-small`
this has not been run.
"""

import ml_collections

from rmpe_jax.config import default_config

# Without SSTN each way to draw boxes; with SSTN PGPG alone.
TRAININGS = (
    "atomic_sstn_parallel",
    "atomic",
    "atomic_sstn",
    "none",
    "atomic_sstn_parallel_differences",
    "mixture",
    "jitter",
    "global",
)


def get_config(arguments: str = "data,labels") -> ml_collections.ConfigDict:
    folder, labels = arguments.split(",")
    config = default_config()
    config.total_steps = 800
    config.batch_size = 16
    config.log_every = 20
    config.checkpoint_every = 100
    config.evaluate_every = 0

    config.model.name = "movenet_lightning"
    config.model.mean = config.model.std = (0.5, 0.5, 0.5)
    config.model.skeleton = "union"
    config.model.input_size = (128, 96)  # a quarter of builtin-small's, for CPUs
    config.model.init_from = "builtin-small"

    config.codec.loss = "cross_entropy"
    config.codec.sigma = 1.5

    config.data.train = (
        f"coco:{labels}:coco",
        f"mpii:{folder}/mpii:train",
        f"lsp:{folder}/lsp_extended",
    )
    config.data.repeats = (6, 4, 1)  # LSP's images are many, small and alike

    config.augmentation.rotation_prob = 0.0
    config.augmentation.scale = 0.0

    config.optim.learning_rate = 4e-4
    config.optim.warmup_steps = 50
    config.optim.clip_norm = 5.0
    config.optim.frozen = r"backbone/(stem|block[0-5]_)"
    config.optim.ema_decay = 0.99
    with config.unlocked():
        config.ablation = ablation(folder, labels)
    return config


def ablation(folder: str, labels: str) -> ml_collections.ConfigDict:
    """Settings of `rmpe ablate`, see `experiments.ablation.config`."""
    coco, mpii = f"coco:{folder}/coco", f"mpii:{folder}/mpii"
    on_coco = f"{folder}/coco/detections/person_detections"
    on_mpii = f"{folder}/mpii/detections/person_detections_centernet.json"
    ablation = ml_collections.ConfigDict()
    ablation.seeds = (0,)
    ablation.trainings = TRAININGS
    ablation.first = ""
    ablation.second = {
        "total_steps": 400,
        "optim": {"learning_rate": 5e-4, "warmup_steps": 20},
        "sstn": {"localization": "small", "localization_factor": 0.1},
    }
    ablation.localization = {
        "total_steps": 400,
        "optim": {"learning_rate": 2e-4, "schedule": "constant", "warmup_steps": 0},
        "sstn": {"localization_factor": 1.0, "localization_warmup": 50},
    }
    ablation.scenes_folder, ablation.scenes = "", {}
    ablation.pgpg = (
        (f"{mpii}:train", on_mpii),
        (f"{coco}:train2017", f"{on_coco}_train2017_centernet.json"),
    )
    ablation.nms_steps = 15
    held_out = {
        "fit_data": f"coco:{labels}:coco_held_out",
        "fit_boxes": f"{on_coco}_train2017_centernet.json",
    }
    ablation.sets = {
        "coco": held_out
        | {"data": f"{coco}:val2017", "boxes": f"{on_coco}_val2017_centernet.json"},
        "mpii": held_out | {"data": f"{mpii}:valid", "boxes": on_mpii},
    }
    return ablation
