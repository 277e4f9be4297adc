"""Skeletons of bodies: COCO, MPII, LSP, CrowdPose, PoseTrack, and the union of all."""

from rmpe_jax.skeletons.skeleton import Skeleton

ARMS_AND_LEGS = tuple(
    (f"{side}_{a}", f"{side}_{b}")
    for side in ("left", "right")
    for a, b in (("shoulder", "elbow"), ("elbow", "wrist"), ("hip", "knee"), ("knee", "ankle"))
)
TORSO = (
    ("left_shoulder", "right_shoulder"),
    ("left_hip", "right_hip"),
    ("left_shoulder", "left_hip"),
    ("right_shoulder", "right_hip"),
)
FACE = (
    ("nose", "left_eye"),
    ("nose", "right_eye"),
    ("left_eye", "left_ear"),
    ("right_eye", "right_ear"),
)
NECK = (("head_top", "upper_neck"),)

# OKS sigmas of COCO: the keypoint evaluation of cocodataset.org, as in pycocotools
# `Params.setKpParams`. Head top and neck: .079 for both, as in CrowdPose's evaluation (Li et al.,
# CVPR 2019). Pelvis and thorax: no benchmark has them, so they use the hip's and the shoulder's.
SIGMA = {
    "nose": 0.026,
    "eye": 0.025,
    "ear": 0.035,
    "shoulder": 0.079,
    "elbow": 0.072,
    "wrist": 0.062,
    "hip": 0.107,
    "knee": 0.087,
    "ankle": 0.089,
    "head_top": 0.079,
    "upper_neck": 0.079,
    "thorax": 0.079,
    "pelvis": 0.107,
}


def _skeleton(name: str, joints: str, limbs: tuple[tuple[str, str], ...]) -> Skeleton:
    names = tuple(joints.split())
    sigmas = tuple(SIGMA[j.removeprefix("left_").removeprefix("right_")] for j in names)
    return Skeleton(name, names, limbs, sigmas)


COCO = _skeleton(  # Lin et al., ECCV 2014; order of the `categories` entry of the annotation files
    "coco",
    "nose left_eye right_eye left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle",
    (*ARMS_AND_LEGS, *TORSO, *FACE),
)

MPII = _skeleton(  # Andriluka et al., CVPR 2014; joint ids 0-15 of the annotation release
    "mpii",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle pelvis thorax upper_neck "
    "head_top right_wrist right_elbow right_shoulder left_shoulder left_elbow left_wrist",
    (*ARMS_AND_LEGS, *TORSO, *NECK, ("upper_neck", "thorax"), ("thorax", "pelvis")),
)

LSP = _skeleton(  # Johnson & Everingham, BMVC 2010 and CVPR 2011; rows of `joints.mat`.
    # Its "neck" counts as MPII's upper neck, the convention of unions of the two datasets.
    "lsp",
    "right_ankle right_knee right_hip left_hip left_knee left_ankle right_wrist right_elbow "
    "right_shoulder left_shoulder left_elbow left_wrist upper_neck head_top",
    (*ARMS_AND_LEGS, *TORSO, *NECK),
)

CROWDPOSE = _skeleton(  # Li et al., CVPR 2019; order of the `categories` entry of its json
    "crowdpose",
    "left_shoulder right_shoulder left_elbow right_elbow left_wrist right_wrist left_hip "
    "right_hip left_knee right_knee left_ankle right_ankle head_top upper_neck",
    (*ARMS_AND_LEGS, *TORSO, *NECK),
)

# Andriluka et al., CVPR 2018; order of the `categories` entry of PoseTrack18. Its "head_bottom" is
# MPII's upper neck. Its ears are never annotated.
POSETRACK = _skeleton(
    "posetrack",
    "nose upper_neck head_top left_ear right_ear left_shoulder right_shoulder left_elbow "
    "right_elbow left_wrist right_wrist left_hip right_hip left_knee right_knee left_ankle "
    "right_ankle",
    (
        *ARMS_AND_LEGS,
        *TORSO,
        *NECK,
        ("nose", "upper_neck"),
        ("nose", "left_ear"),
        ("nose", "right_ear"),
    ),
)

# All joints of the five datasets, COCO's first: a network trained on it serves all of them.
UNION = _skeleton(
    "union",
    " ".join((*COCO.joints, "pelvis", "thorax", "upper_neck", "head_top")),
    (*COCO.limbs, *NECK, ("upper_neck", "thorax"), ("thorax", "pelvis")),
)
