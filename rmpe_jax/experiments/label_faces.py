"""COCO's joints of the face for people of MPII and LSP, labelled by a teacher network.

  pip download --no-deps mediapipe==0.10.14
  unzip mediapipe-*.whl 'mediapipe/modules/pose_landmark/*'
  pip install 'rmpe_jax[distill]'
  python -m rmpe_jax.experiments.label_faces mpii:FOLDER/mpii:train --name=mpii --out=faces \\
      --teacher=mediapipe/modules/pose_landmark/pose_landmark_full.tflite \\
      --detections=FOLDER/mpii/detections/person_detections_centernet.json

Then `coco:faces:mpii` is a data set to train on: twelve joints as people annotated them, nose, eyes
and ears as the teacher sees them, where it agrees with people about the rest of the body. COCO's
training people are few in a small subset, and OKS is strictest on the face.

The teacher is BlazePose (Bazarevsky et al., 2020; Apache-2.0, in the wheel of MediaPipe). It wants
a square around the hips that holds the whole body, turned so that the body is upright; the
annotated joints say where that is.
"""

import argparse
import os
import pathlib
import sys
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from rmpe_jax.data.images import ImageError, read_image
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset, pick_joints, trainable
from rmpe_jax.entry import run
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import load_detections
from rmpe_jax.files import write_json
from rmpe_jax.ops import geometry
from rmpe_jax.progress import progress
from rmpe_jax.skeletons import COCO

SIZE = 256  # of the teacher's input
# COCO's joints among the teacher's 33.
LANDMARKS = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
FACE = slice(0, 5)  # of COCO's joints
BODY = slice(5, 17)
# As a share of the length of the torso: how far the teacher's joints may be from people's.
MAX_DISTANCE = 0.25
MIN_CONFIDENCE = 0.5
MIN_IOU = 0.5


class Pose(NamedTuple):
    """What the teacher sees: COCO's joints in image pixels, and whether they are in sight."""

    keypoints: Float[np.ndarray, "17 2"]
    confidence: Float[np.ndarray, " 17"]


class Teacher:
    """BlazePose's landmark network."""

    def __init__(self, path: str):
        try:
            # pyrefly: ignore[missing-import]
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError("ai-edge-litert is missing: pip install 'rmpe_jax[distill]'") from None
        if not os.path.isfile(path):
            raise UserError(f"{path}: no such file; see the head of this program for its source")
        self._net = Interpreter(path, num_threads=2)
        self._net.allocate_tensors()
        self._input = self._net.get_input_details()[0]["index"]
        outputs = {output["name"]: output["index"] for output in self._net.get_output_details()}
        self._landmarks = outputs["Identity"]

    def __call__(
        self, image: UInt8[np.ndarray, "h w 3"], image_from_crop: Float[np.ndarray, "2 3"]
    ) -> Pose:
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        crop = cv2.warpAffine(image, image_from_crop, (SIZE, SIZE), flags=flags)
        self._net.set_tensor(self._input, crop[None].astype(np.float32) / 255)
        self._net.invoke()
        # x, y, z in crop pixels; logits of being in sight, and of being in the crop.
        found = self._net.get_tensor(self._landmarks).reshape(-1, 5)[list(LANDMARKS)]
        sure = 1 / (1 + np.exp(-found[:, 3:]))
        return Pose(geometry.transform_points(image_from_crop, found[:, :2]), sure.prod(-1))


def upright_square(
    keypoints: Float[np.ndarray, "17 2"], labelled: Bool[np.ndarray, " 17"]
) -> Float[np.ndarray, "2 3"] | None:
    """`image_from_crop` of the square that BlazePose wants; None without both shoulders and hips.

    Its centre is between the hips, its y axis along the torso, and its side 2.5 times the distance
    to the farthest joint, as the face and the hands reach beyond the joints.
    """
    if not labelled[[5, 6, 11, 12]].all():
        return None
    shoulders, hips = keypoints[[5, 6]].mean(0), keypoints[[11, 12]].mean(0)
    down = hips - shoulders
    reach = max(np.linalg.norm(keypoints[labelled] - hips, axis=-1).max(), 1.6 * np.hypot(*down))
    if np.hypot(*down) < 1:
        return None
    y_axis = down / np.hypot(*down)
    axes = np.stack([[y_axis[1], -y_axis[0]], y_axis], -1) * 2.5 * reach / SIZE
    return np.c_[axes, hips - axes @ np.full(2, (SIZE - 1) / 2)].astype(np.float32)


def agrees(
    pose: Pose, keypoints: Float[np.ndarray, "17 2"], labelled: Bool[np.ndarray, " 17"]
) -> bool:
    """Whether the teacher looks at the annotated person, and has him the right way round."""
    torso = np.linalg.norm(keypoints[[5, 6]].mean(0) - keypoints[[11, 12]].mean(0))
    distances = np.linalg.norm(pose.keypoints - keypoints, axis=-1) / torso
    shoulders = distances[[5, 6]].max() < MAX_DISTANCE
    return bool(shoulders and np.median(distances[BODY][labelled[BODY]]) < MAX_DISTANCE)


def label(
    dataset: PoseDataset,
    teacher: Teacher,
    boxes: dict[int, Float[np.ndarray, "m 4"]],
    relative_to: pathlib.Path,
) -> dict:
    """A COCO annotation file of a data set's people with COCO's joints.

    Args:
      dataset: MPII, LSP or another with the twelve joints of arms and legs.
      teacher: for the other five.
      boxes: a detector's, by picture index; of a person that one fits it is taken, because the
        extent of joints is not what a detector or COCO calls a person's box.
      relative_to: the folder that file names are relative to.
    """
    images, annotations, faces = [], [], 0
    for index, picture in enumerate(progress(dataset.images, len(dataset.images), "labelled")):
        try:
            image = read_image(picture.path)
        except ImageError as error:
            print(f"left out: {error}", file=sys.stderr)
            continue
        name = os.path.relpath(picture.path, relative_to)
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for bbox, keypoints, visibility in _people(picture, dataset):
            face = _face(image, keypoints, visibility > 0, teacher)
            if face is not None:
                keypoints[FACE], visibility[FACE] = face
                faces += int(visibility[FACE].any())
            bbox = _detected(bbox, boxes.get(index))
            annotations.append(
                _annotation(len(annotations) + 1, index + 1, bbox, keypoints, visibility)
            )
    print(f"{len(annotations)} people, {faces} with joints of the face", file=sys.stderr)
    person = {"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [person]}


def _people(picture: ImageRecord, dataset: PoseDataset):
    indices = COCO.indices_in(dataset.skeleton)
    keypoints, visibility = pick_joints(picture.keypoints, picture.visibility, indices)
    for person in np.flatnonzero(trainable(picture) & (visibility > 0).any(-1)):
        yield picture.bboxes[person], keypoints[person].copy(), visibility[person].copy()


def _face(image, keypoints, labelled, teacher):
    image_from_crop = upright_square(keypoints, labelled)
    if image_from_crop is None:
        return None
    pose = teacher(image, image_from_crop)
    if not agrees(pose, keypoints, labelled):
        return None
    height, width = image.shape[:2]
    points = pose.keypoints[FACE]
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(-1)
    seen = inside & (pose.confidence[FACE] > MIN_CONFIDENCE)
    return np.where(seen[:, None], points, 0), np.where(seen, 2, 0)


def _detected(bbox: np.ndarray, detected: np.ndarray | None) -> np.ndarray:
    if detected is None:
        return bbox
    iou = geometry.box_iou(bbox[None], detected)[0]
    return detected[iou.argmax()] if iou.max() >= MIN_IOU else bbox


def _annotation(person_id: int, image_id: int, bbox, keypoints, visibility) -> dict:
    joints = np.c_[keypoints.round(2), visibility]
    return {
        "id": person_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "num_keypoints": int((visibility > 0).sum()),
        "keypoints": [float(value) for value in joints.ravel()],
        "bbox": geometry.xywh_from_xyxy(bbox.astype(np.float64)).round(2).tolist(),
        "area": float(geometry.box_area(bbox)),
    }


def label_faces(spec: str, name: str, out: pathlib.Path, teacher: str, detections: str) -> None:
    """Writes `out/annotations/person_keypoints_NAME.json`; pictures stay where they are.

    Raises:
      UserError: data, teacher or detections cannot be used.
    """
    dataset = open_dataset(spec)
    boxes = {}
    if detections:
        found = load_detections(detections, dataset, True)
        for index in np.unique(found.image_index):
            boxes[int(index)] = found.bboxes[found.image_index == index]
    folder = out.resolve() / name
    folder.mkdir(parents=True, exist_ok=True)  # file names start from here
    document = label(dataset, Teacher(teacher), boxes, folder)
    (out / "annotations").mkdir(exist_ok=True)
    write_json(out / f"annotations/person_keypoints_{name}.json", document)


def main() -> int:
    """The command line above."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="as config.data.train has it, such as mpii:FOLDER:train")
    parser.add_argument("--name", required=True, help="of the labelled data set")
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--teacher", required=True, help="pose_landmark_full.tflite")
    parser.add_argument("--detections", default="", help="boxes in COCO's form")
    args = parser.parse_args()
    return run(lambda: label_faces(args.data, args.name, args.out, args.teacher, args.detections))


if __name__ == "__main__":
    sys.exit(main())
