"""The built-in pose network: `litepose_effnet0` for COCO's joints, 160x128.

This is the second stage. It starts from the workdir of `configs/real_small_cpu.py`. Later stages
are this config with a few other values, see the model card, docs/model_card.md:

  rmpe fit-pgpg --out=pgpg --data coco:FOLDER/coco:train2017 \\
      FOLDER/coco/detections/person_detections_train2017_centernet.json
  python -m rmpe_jax.experiments.label_faces …     (see there; makes `faces` for mpii and lsp)
  python train.py --config=configs/pose_small.py:FOLDER --workdir=runs/pose_small

New in the second stage: facial joints of people in MPII and LSP, labeled by a teacher; crops by
boxes of a real detector and by proposals with the errors of a detector; crops of 160x128.
"""

import ml_collections

from rmpe_jax.config import default_config


def get_config(folder: str = "data") -> ml_collections.ConfigDict:
    config = default_config()
    config.total_steps = 3200
    config.batch_size = 32
    config.log_every = 50
    config.checkpoint_every = 200
    config.evaluate_every = 800

    config.model.name = "litepose_effnet0"
    config.model.skeleton = "coco"
    config.model.input_size = (160, 128)
    config.model.init_from = "runs/real_small_cpu"

    config.codec.loss = "cross_entropy"
    config.codec.sigma = 1.5

    config.data.train = (
        f"coco:{folder}/coco:train2017",
        "coco:faces:mpii",
        "coco:faces:lsp",
    )
    config.data.repeats = (8, 3, 1)
    config.data.evaluate = (f"coco:{folder}/coco:val2017",)
    config.data.proposals = "atomic"
    config.data.pgpg_model = "pgpg/pgpg.npz"

    config.augmentation.rotation_degrees = 35.0
    config.augmentation.scale = 0.15
    config.augmentation.half_body_prob = 0.25
    config.augmentation.color_gain = (0.6, 1.4)

    config.optim.learning_rate = 1e-3
    config.optim.warmup_steps = 100
    config.optim.clip_norm = 5.0
    config.optim.frozen = r"depthwise$|backbone/(stem|block[012]_)"
    config.optim.ema_decay = 0.998
    return config
