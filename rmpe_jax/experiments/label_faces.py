"""Labels COCO's facial joints of people in MPII and LSP with a teacher network.

  pip download --no-deps mediapipe==0.10.14
  unzip mediapipe-*.whl 'mediapipe/modules/pose_landmark/*'
  pip install 'rmpe_jax[distill]'
  python -m rmpe_jax.experiments.label_faces mpii:FOLDER/mpii:train --name=mpii --out=faces \\
      --teacher=mediapipe/modules/pose_landmark/pose_landmark_full.tflite \\
      --detections=FOLDER/mpii/detections/person_detections_centernet.json

Then `coco:faces:mpii` is a dataset to train on. Twelve joints are the dataset's own annotations.
Nose, eyes and ears come from the teacher, if it agrees with the annotations on the rest of the
body. The reason: a small subset of COCO has few people to train on, and OKS is strictest on the
face.

The teacher is BlazePose (Bazarevsky et al., 2020; Apache-2.0, in the wheel of MediaPipe). Its input
is a square that is centered on the hips, contains the whole body, and is rotated so that the body
is upright. The square is computed from the annotated joints.
"""

import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.arguments import Parser
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

SIZE = 256  # side of the teacher's input, pixels
# The index of each COCO joint among the teacher's 33.
LANDMARKS = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
FACE = slice(0, 5)  # of COCO's joints
BODY = slice(5, 17)
MAX_DISTANCE = 0.25  # of the teacher's joints from annotated ones, in lengths of the torso
MIN_CONFIDENCE = 0.5  # of a facial joint
MIN_IOU = 0.5  # of a detected box that replaces an annotated one


class Pose(NamedTuple):
    """A pose predicted by the teacher.

    Attributes:
      keypoints: COCO's joints, image pixels.
      confidence: 0 to 1, of each joint being visible and inside the crop.
    """

    keypoints: Float[np.ndarray, "17 2"]
    confidence: Float[np.ndarray, " 17"]


# Predicts the pose in the crop of an RGB image (h, w, 3), given `image_from_crop` (2, 3).
PredictPose = Callable[[np.ndarray, np.ndarray], Pose]


class Teacher:
    """BlazePose's landmark network, a `PredictPose`."""

    def __init__(self, path: str):
        """Loads `pose_landmark_full.tflite`.

        Raises:
          UserError: ai-edge-litert is not installed, or there is no such file.
        """
        try:
            # pyrefly: ignore[missing-import]
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            raise UserError("ai-edge-litert is missing: pip install 'rmpe_jax[distill]'") from None
        if not os.path.isfile(path):
            raise UserError(
                f"{path}: no such file; see the docstring of this module for its source"
            )
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
        # x, y, z in crop pixels; logits of being visible, and of being inside the crop.
        landmarks = self._net.get_tensor(self._landmarks).reshape(-1, 5)[list(LANDMARKS)]
        probabilities = 1 / (1 + np.exp(-landmarks[:, 3:]))
        keypoints = geometry.transform_points(image_from_crop, landmarks[:, :2])
        return Pose(keypoints, probabilities.prod(-1))


def upright_square(
    keypoints: Float[np.ndarray, "17 2"], labeled: Bool[np.ndarray, " 17"]
) -> Float[np.ndarray, "2 3"] | None:
    """`image_from_crop` of BlazePose's square; None without both shoulders and both hips.

    The center is between the hips, and the y axis lies along the torso. The side is 2.5 times the
    distance to the farthest joint, because face and hands extend beyond the joints.
    """
    if not labeled[[5, 6, 11, 12]].all():
        return None
    shoulders, hips = keypoints[[5, 6]].mean(0), keypoints[[11, 12]].mean(0)
    down = hips - shoulders
    radius = max(np.linalg.norm(keypoints[labeled] - hips, axis=-1).max(), 1.6 * np.hypot(*down))
    if np.hypot(*down) < 1:
        return None
    y_axis = down / np.hypot(*down)
    axes = np.stack([[y_axis[1], -y_axis[0]], y_axis], -1) * 2.5 * radius / SIZE
    return np.c_[axes, hips - axes @ np.full(2, (SIZE - 1) / 2)].astype(np.float32)


def agrees(
    pose: Pose, keypoints: Float[np.ndarray, "17 2"], labeled: Bool[np.ndarray, " 17"]
) -> bool:
    """Whether the teacher found the annotated person, with left and right not swapped."""
    torso = np.linalg.norm(keypoints[[5, 6]].mean(0) - keypoints[[11, 12]].mean(0))
    distances = np.linalg.norm(pose.keypoints - keypoints, axis=-1) / torso
    shoulders_agree = distances[[5, 6]].max() < MAX_DISTANCE
    return bool(shoulders_agree and np.median(distances[BODY][labeled[BODY]]) < MAX_DISTANCE)


def label(
    dataset: PoseDataset,
    teacher: PredictPose,
    boxes: dict[int, Float[np.ndarray, "_ 4"]],
    relative_to: pathlib.Path,
) -> dict:
    """A COCO annotation file of the people of a dataset, with COCO's joints.

    Args:
      dataset: MPII, LSP, or another dataset with the twelve joints of arms and legs.
      teacher: predicts the other five joints.
      boxes: a detector's boxes, by index of the image. A box that fits a person replaces the
        annotated one, which in these datasets is the extent of the joints and smaller than the
        boxes of detectors and COCO.
      relative_to: the folder that file names are relative to.

    Returns:
      The content of the file.
    """
    images, annotations, faces = [], [], 0
    for index, record in enumerate(progress(dataset.images, len(dataset.images), "images")):
        try:
            image = read_image(record.path)
        except ImageError as error:
            print(f"skipped: {error}", file=sys.stderr)
            continue
        name = os.path.relpath(record.path, relative_to)
        height, width = image.shape[:2]
        images.append({"id": index + 1, "file_name": name, "height": height, "width": width})
        for bbox, keypoints, visibility in _people(record, dataset):
            face = _predict_face(image, keypoints, visibility > 0, teacher)
            if face is not None:
                keypoints[FACE], visibility[FACE] = face
                faces += int(visibility[FACE].any())
            bbox = _matching_box(bbox, boxes.get(index))
            annotations.append(
                _annotation(len(annotations) + 1, index + 1, bbox, keypoints, visibility)
            )
    print(f"{len(annotations)} people, {faces} with facial joints", file=sys.stderr)
    person = {"id": 1, "name": "person", "keypoints": list(COCO.joints), "skeleton": []}
    return {"images": images, "annotations": annotations, "categories": [person]}


def _people(
    record: ImageRecord, dataset: PoseDataset
) -> Iterator[tuple[Float[np.ndarray, " 4"], Float[np.ndarray, "17 2"], UInt8[np.ndarray, " 17"]]]:
    """Box, keypoints and visibility of each person one can train on, in COCO's joints."""
    indices = COCO.indices_in(dataset.skeleton)
    keypoints, visibility = pick_joints(record.keypoints, record.visibility, indices)
    for person in np.flatnonzero(trainable(record) & (visibility > 0).any(-1)):
        yield record.bboxes[person], keypoints[person].copy(), visibility[person].copy()


def _predict_face(
    image: UInt8[np.ndarray, "h w 3"],
    keypoints: Float[np.ndarray, "17 2"],
    labeled: Bool[np.ndarray, " 17"],
    teacher: PredictPose,
) -> tuple[Float[np.ndarray, "5 2"], Int[np.ndarray, " 5"]] | None:
    """Keypoints and visibility of the facial joints; None if the teacher is not usable here."""
    image_from_crop = upright_square(keypoints, labeled)
    if image_from_crop is None:
        return None
    pose = teacher(image, image_from_crop)
    if not agrees(pose, keypoints, labeled):
        return None
    height, width = image.shape[:2]
    points = pose.keypoints[FACE]
    inside = ((points >= 0) & (points <= (width - 1, height - 1))).all(-1)
    visible = inside & (pose.confidence[FACE] > MIN_CONFIDENCE)
    return np.where(visible[:, None], points, 0), np.where(visible, 2, 0)


def _matching_box(
    bbox: Float[np.ndarray, " 4"], detected: Float[np.ndarray, "m 4"] | None
) -> Float[np.ndarray, " 4"]:
    """The detected box that fits a person's box best; the person's box if none fits."""
    if detected is None:
        return bbox
    iou = geometry.box_iou(bbox[None], detected)[0]
    return detected[iou.argmax()] if iou.max() >= MIN_IOU else bbox


def _annotation(
    person_id: int,
    image_id: int,
    bbox: Float[np.ndarray, " 4"],
    keypoints: Float[np.ndarray, "17 2"],
    visibility: UInt8[np.ndarray, " 17"],
) -> dict:
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
    """Writes `out/annotations/person_keypoints_NAME.json`. Image files are not copied.

    Args:
      spec: the dataset, such as `mpii:FOLDER:train`.
      name: of the labeled dataset.
      out: folder to write.
      teacher: path of `pose_landmark_full.tflite`.
      detections: a detections file, or "".

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
    folder.mkdir(parents=True, exist_ok=True)  # file names are relative to it
    document = label(dataset, Teacher(teacher), boxes, folder)
    (out / "annotations").mkdir(exist_ok=True)
    write_json(out / f"annotations/person_keypoints_{name}.json", document)


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = Parser(description=__doc__.splitlines()[0])
    parser.add_argument("data", metavar="SPEC", help="a dataset, such as mpii:FOLDER:train")
    parser.add_argument("--name", required=True, help="name of the labeled dataset")
    parser.add_argument(
        "--out", type=pathlib.Path, required=True, metavar="OUT", help="folder to write"
    )
    parser.add_argument(
        "--teacher", required=True, metavar="FILE", help="pose_landmark_full.tflite"
    )
    parser.add_argument(
        "--detections", default="", metavar="FILE", help="boxes in COCO's format (optional)"
    )
    args = parser.parse_args()
    return run(lambda: label_faces(args.data, args.name, args.out, args.teacher, args.detections))


if __name__ == "__main__":
    sys.exit(main())
