"""FastPose with ResNet-50 on COCO, second phase: AlphaPose's epochs 210 to 270, with proposals.

  rmpe fit-pgpg --out=pgpg --data coco:FOLDER/coco:train2017 DETECTIONS.json
  python train.py --config=configs/coco_fastpose_res50_proposals.py:FOLDER,FIRST,PGPG \\
    --workdir=runs/fastpose_proposals

FIRST is the run of configs/coco_fastpose_res50_256x192.py, by default runs/fastpose; FOLDER is as
there. PGPG, by default pgpg/pgpg.npz, has the distribution of a detector's boxes about the people
that they find (docs/pgpg.md).

Source: the settings and training logs published with AlphaPose's code (Fang et al., TPAMI 2022).
From epoch 210 on, people are cropped by proposals, of which 15 of 100 are a part of the person. The
learning rate starts at 1e-3 again, divided by ten after 20 and 40 of the 60 epochs. Over this phase
AP on val2017 rises from 73.0 to 73.2 with ground-truth boxes and from 70.9 to 71.2 with YOLOv3's;
at first it falls, to 71.7 and 69.5 after epoch 211.

These numbers are published. This config has not been trained yet, so its AP and run time are
unknown. Differences, beside those of the first phase: proposals depend on the pose (AlphaPose: one
distribution for all poses); Adam's averages start anew, so there is a warm-up of 500 steps. If the
first phase had exact targets and DARK, give the same two options here.
"""

import pathlib
import runpy

import ml_collections


def get_config(arguments: str = "data") -> ml_collections.ConfigDict:
    values = arguments.split(",")
    folder, first, pgpg = values + ["data", "runs/fastpose", "pgpg/pgpg.npz"][len(values) :]
    phase = runpy.run_path(str(pathlib.Path(__file__).with_name("coco_fastpose_res50_256x192.py")))
    config, epochs = phase["get_config"](f"{folder},random"), phase["epochs"]
    config.model.init_from = first
    config.total_steps = epochs(60)

    config.data.proposals = "atomic"
    config.data.pgpg_model = pgpg
    config.data.patch_prob = 0.15

    config.optim.warmup_steps = 500
    config.optim.milestones = (epochs(20), epochs(40))
    return config
