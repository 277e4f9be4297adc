"""The ablation on real images, from one finished network.

  python train.py --config=configs/real_small_cpu.py:FOLDER --workdir=runs/real_small_cpu
  rmpe ablate --config=configs/ablation_real.py:FOLDER,runs/real_small_cpu --workdir=ablation_real

FOLDER is as for configs/real_small_cpu.py, with the boxes of two detectors beside the images. The
finished run is the first stage. Short second stages of equal length continue it with and without
SSTN and parallel SPPE. COCO val2017 is scored by AP on the boxes of each detector, MPII valid by
mAP on CenterNet's. PGPG is fitted to boxes on the training images, and pose NMS to poses on COCO's
training images. Results: docs/ablation.md.
"""

import pathlib
import runpy

import ml_collections

DETECTORS = ("centernet", "fastestdet")


def get_config(arguments: str = "data,runs/real_small_cpu") -> ml_collections.ConfigDict:
    folder, first = arguments.split(",")
    small = pathlib.Path(__file__).with_name("real_small_cpu.py")
    config = runpy.run_path(str(small))["get_config"](folder)
    config.seed = 1  # another order of people than in the first stage
    config.log_every = 20
    config.checkpoint_every = 100
    config.evaluate_every = 0
    config.data.evaluate = ()
    with config.unlocked():
        config.ablation = ablation(folder, first)
    return config


def ablation(folder: str, first: str) -> ml_collections.ConfigDict:
    """Settings of `rmpe ablate`, see `experiments.ablation.config`."""
    coco, mpii = f"coco:{folder}/coco", f"mpii:{folder}/mpii"
    on_coco = f"{folder}/coco/detections/person_detections"
    on_mpii = f"{folder}/mpii/detections/person_detections"
    ablation = ml_collections.ConfigDict()
    ablation.seeds = (0,)
    ablation.trainings = ("atomic_sstn_parallel", "atomic")
    ablation.first = first
    ablation.second = {
        "total_steps": 60,
        "optim": {"learning_rate": 2e-4, "warmup_steps": 20, "ema_decay": 0.98},
        "sstn": {"localization": "small", "localization_factor": 0.2},
        "augmentation": {"rotation_prob": 0.0, "scale": 0.0, "translation": 0.0},
    }
    ablation.scenes_folder, ablation.scenes = "", {}
    ablation.pgpg = (
        (f"{mpii}:train", *(f"{on_mpii}_{name}.json" for name in DETECTORS)),
        (f"{coco}:train2017", *(f"{on_coco}_train2017_{name}.json" for name in DETECTORS)),
    )
    ablation.nms_steps = 15
    on_train = {
        "fit_data": f"{coco}:train2017",
        "fit_boxes": f"{on_coco}_train2017_centernet.json",
    }
    ablation.sets = {
        "coco_centernet": on_train
        | {"data": f"{coco}:val2017", "boxes": f"{on_coco}_val2017_centernet.json"},
        "mpii_centernet": on_train
        | {"data": f"{mpii}:valid", "boxes": f"{on_mpii}_centernet.json"},
        "coco_fastestdet": {
            "data": f"{coco}:val2017",
            "boxes": f"{on_coco}_val2017_fastestdet.json",
            "fit_data": f"{coco}:train2017",
            "fit_boxes": f"{on_coco}_train2017_fastestdet.json",
        },
    }
    return ablation
