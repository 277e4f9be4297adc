"""Labels the people of a dataset with a model: implements `rmpe label`."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rmpe_jax.data.inspection import inspect_dataset
from rmpe_jax.data.label_file import box_record, coco_annotations, coco_image_ids
from rmpe_jax.data.labels import (
    FoundPeople,
    LabeledPeople,
    MergeCounts,
    MergeRule,
    merge_labels,
    refit_boxes,
)
from rmpe_jax.data.readers.datasets import open_dataset
from rmpe_jax.data.readers.records import PoseDataset, pick_joints
from rmpe_jax.detectors.protocol import Boxes
from rmpe_jax.errors import UserError
from rmpe_jax.evaluation.boxes import DatasetBoxes
from rmpe_jax.evaluation.offsets import Offsets, joint_offsets, warn_of_offset
from rmpe_jax.evaluation.pose_file import load_poses
from rmpe_jax.evaluation.predictions import PosePredictions
from rmpe_jax.experiments.found_people import (
    Found,
    ModelSource,
    PeopleFinder,
    boxes_of_file,
    look,
    readable,
)
from rmpe_jax.files import write_json
from rmpe_jax.lock import FolderLock
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import COCO, Skeleton

REFIT_SCORE = 0.05  # of a detector's box that may replace a person's
FILE_CROP = geometry.CropSpec((256, 192))  # gives the size of a crop pixel for poses of a file


class FileSource(NamedTuple):
    """Poses of a file; see `evaluation.pose_file.load_poses`.

    Attributes:
      poses: the file.
      skeleton: its joints.
      detections: a file of a detector's boxes; "" for none.
    """

    poses: str
    skeleton: Skeleton = COCO
    detections: str = ""


class Report(NamedTuple):
    """What `label_dataset` has done.

    Attributes:
      name: of the dataset.
      images: number of images that were written, those that are held out included.
      counts: what became of people and joints.
      offsets: of the model's joints from the annotated ones.
      unreadable: one line for each image that was left out.
      detections: the file of the detector's boxes; None if there are no boxes.
    """

    name: str
    images: int
    counts: MergeCounts
    offsets: Offsets
    unreadable: list[str]
    detections: pathlib.Path | None

    def rows(self) -> dict[str, int]:
        """The counts by their names in a `summary_table`."""
        counts = self.counts
        return {
            "images": self.images,
            "people annotated": counts.annotated,
            "people matched": counts.matched,
            "people added": counts.added,
            "people left out: labeled already": counts.repeated,
            "people left out: few certain joints": counts.unclear,
            "joints kept": counts.kept,
            "joints from the model": counts.modeled,
            "joints left out": counts.unlabeled,
            "joints disagreeing": counts.disagreeing,
            "skipped: unreadable images": len(self.unreadable),
        }

    def offset_line(self) -> str:
        """The mean signed error in words."""
        if not np.isfinite(self.offsets.mean).all():
            return "no joint of the model is near an annotated one"
        x, y = self.offsets.mean
        count = int(self.offsets.counts.sum())
        where = f"{x:+.2f} in x, {y:+.2f} in y"
        return f"mean error of {count:,} joints of the model: {where} (pixels of the crop)"


def label_dataset(
    data: str,
    out: pathlib.Path,
    name: str,
    source: ModelSource | FileSource,
    rule: MergeRule,
    *,
    refit: bool = False,
    hold_out: int = 0,
    num_threads: int = 2,
    find: Callable[[int], list[Found | str]] | None = None,
) -> Report:
    """Write the people of a dataset, as annotated and as found, as the dataset `coco:OUT:NAME`.

    Writes `annotations/person_keypoints_NAME.json`, and `detections/NAME.json` if there are boxes
    of a detector, for `config.data.detections`. Image files stay where they are: their names in
    the file are relative to `OUT/NAME`. Unreadable images are left out. Nothing is written before
    all is done.

    Args:
      data: the dataset, such as `mpii:FOLDER:train`.
      out: folder to write.
      name: of the labeled dataset; "" for that of `data`.
      source: where found people come from.
      rule: how they are merged with the annotations, in COCO's joints.
      refit: replace people's boxes by those of the detector, see `refit_boxes`.
      hold_out: of so many images one goes to the dataset `coco:OUT:NAME_held_out` instead; 0: none.
      num_threads: threads that decode images.
      find: finds the people of a model elsewhere, in so many images, instead of a `PeopleFinder`.

    Raises:
      UserError: data, source or folder cannot be used, the model lacks a joint that it must give,
        or the labeled dataset exists.
    """
    with FolderLock(out) as lock:
        return _label(data, out, name, source, rule, refit, hold_out, num_threads, find, lock)


def _label(
    data: str,
    out: pathlib.Path,
    name: str,
    source: ModelSource | FileSource,
    rule: MergeRule,
    refit: bool,
    hold_out: int,
    num_threads: int,
    find: Callable[[int], list[Found | str]] | None,
    lock: FolderLock,
) -> Report:
    given = open_dataset(data)
    name = name or given.name.rpartition("/")[2]
    paths = {part: _annotation_file(out, part) for part in (name, f"{name}_held_out")}
    box_path = out / "detections" / f"{name}.json"
    if box_path.exists():
        raise UserError(f"{box_path} exists: remove it, or choose another folder or name")
    if hold_out and not 2 <= hold_out <= len(given.images):
        count = len(given.images)
        raise UserError(f"{given.name}: hold out every N-th of {count} images, N from 2 to {count}")
    by_file = isinstance(source, FileSource)
    joints = _joints_in(source.skeleton if by_file else source.model.spec.skeleton, rule)
    dataset = _in_skeleton(given, rule.skeleton)
    inspect_dataset(dataset, dataset.skeleton, {}).warn()
    boxes = boxes_of_file(source.detections, dataset) if source.detections else None
    if by_file:
        looked = look(dataset, boxes, num_threads=num_threads)
    elif find:
        looked = find(len(dataset.images))
    else:
        looked = PeopleFinder(source, num_threads)(dataset, boxes)
    dataset, unreadable = readable(dataset, looked), [x for x in looked if isinstance(x, str)]
    if not dataset.images:
        raise UserError(f"{dataset.name}: no image can be read; the first: {unreadable[0]}")
    in_images = [image for image in looked if not isinstance(image, str)]
    boxes = [image.boxes for image in in_images]
    if by_file:
        found = load_poses(source.poses, dataset, source.skeleton)
    else:
        found = [image.people for image in in_images if image.people is not None]
    found = [_pick(people, joints) for people in found]
    labeled = _merge(dataset, found, rule)
    crop = FILE_CROP if by_file else source.model.spec.crop
    offsets = _offsets(dataset, found, labeled, rule, crop)
    warn_of_offset(given.name, offsets)
    if refit:
        labeled = [
            refit_boxes(people, found.bboxes[found.scores >= REFIT_SCORE])
            for people, found in zip(labeled, boxes, strict=True)
        ]
    lock.require_held()
    with_boxes = bool(source.detections) or not (by_file or source.detector is None)
    if with_boxes:
        write_json(box_path, _box_records(dataset, boxes))
    is_held_out = [bool(hold_out) and i % hold_out == hold_out - 1 for i in range(len(labeled))]
    all_ids = coco_image_ids(dataset)
    for (part, path), held_out in zip(paths.items(), (False, True), strict=True):
        chosen = [i for i, is_in in enumerate(is_held_out) if is_in == held_out]
        if chosen:
            (out / part).mkdir(parents=True, exist_ok=True)  # file names are relative to it
            images = dataclasses.replace(dataset, images=tuple(dataset.images[i] for i in chosen))
            ids = [all_ids[i] for i in chosen]
            document = coco_annotations(images, ids, [labeled[i] for i in chosen], out / part, rule)
            write_json(path, document)
    return Report(
        name=f"coco:{out}:{name}",
        images=len(labeled),
        counts=sum((people.counts for people in labeled), MergeCounts()),
        offsets=offsets,
        unreadable=unreadable,
        detections=box_path if with_boxes else None,
    )


def _annotation_file(out: pathlib.Path, name: str) -> pathlib.Path:
    if not re.fullmatch(r"\w[\w.-]*", name):
        line = f"{name!r} cannot name a dataset: use letters, digits, '_', '-' and '.'"
        raise UserError(line)
    path = out / "annotations" / f"person_keypoints_{name}.json"
    if path.exists():
        raise UserError(f"{path} exists: remove it, or choose another folder or name")
    return path


def _joints_in(given: Skeleton, rule: MergeRule) -> np.ndarray:
    """For each joint of the rule's skeleton its index among those that are given, or -1.

    Raises:
      UserError: none is given, or one of `from_model` is not.
    """
    indices = rule.skeleton.indices_in(given)
    missing = np.array(rule.skeleton.joints)[(indices < 0) & rule.is_from_model]
    if len(missing) or (indices < 0).all():
        what = ", ".join(missing) or f"joint of {rule.skeleton.name}"
        raise UserError(f"the {given.name} joints of the model have no {what}: use another model")
    return indices


def _in_skeleton(dataset: PoseDataset, skeleton: Skeleton) -> PoseDataset:
    indices = skeleton.indices_in(dataset.skeleton)
    images = []
    for record in dataset.images:
        keypoints, visibility = pick_joints(record.keypoints, record.visibility, indices)
        images.append(dataclasses.replace(record, keypoints=keypoints, visibility=visibility))
    return dataclasses.replace(dataset, skeleton=skeleton, images=tuple(images))


def _pick(found: FoundPeople, joints: np.ndarray) -> FoundPeople:
    """The same people with other joints; where the index is -1, NaN with score 0."""
    missing = joints < 0
    keypoints = np.where(missing[:, None], np.nan, found.keypoints[:, joints]).astype(np.float32)
    scores = np.where(missing, 0, found.keypoint_scores[:, joints]).astype(np.float32)
    return found._replace(keypoints=keypoints, keypoint_scores=scores)


def _merge(
    dataset: PoseDataset, found: Sequence[FoundPeople], rule: MergeRule
) -> list[LabeledPeople]:
    next_id = 1 + max(int(record.person_ids.max(initial=0)) for record in dataset.images)
    labeled = []
    for record, people in zip(dataset.images, found, strict=True):
        merged = merge_labels(record, people, rule, next_id)
        next_id += len(merged.person_ids) - len(record.person_ids)
        labeled.append(merged)
    return labeled


def _offsets(
    dataset: PoseDataset,
    found: Sequence[FoundPeople],
    labeled: Sequence[LabeledPeople],
    rule: MergeRule,
    crop: geometry.CropSpec,
) -> Offsets:
    """Of the people who are annotated and found, without the joints that are always the model's."""
    images, rows = [], []
    keypoints, scores = [], []
    for index, (record, people) in enumerate(zip(dataset.images, labeled, strict=True)):
        visibility = np.where(rule.is_from_model, 0, record.visibility).astype(np.uint8)
        images.append(dataclasses.replace(record, visibility=visibility))
        matches = people.found_index[: len(record.bboxes)]
        matched = np.flatnonzero(matches >= 0)
        rows += [(index, person) for person in matched]
        keypoints.append(found[index].keypoints[matches[matched]])
        scores.append(found[index].keypoint_scores[matches[matched]])
    image_index, person_index = np.array(rows, np.int64).reshape(-1, 2).T
    bboxes = np.array([images[i].bboxes[p] for i, p in rows], np.float32).reshape(-1, 4)
    boxes = DatasetBoxes(image_index, bboxes, np.ones(len(rows), np.float32), person_index)
    compared = dataclasses.replace(dataset, images=tuple(images))
    joined = np.concatenate(keypoints), np.concatenate(scores)
    return joint_offsets(PosePredictions(compared, boxes, *joined, rule.skeleton), crop)


def _box_records(dataset: PoseDataset, boxes: Sequence[Boxes]) -> list[dict]:
    return [
        box_record(image_id, bbox, score)
        for image_id, found in zip(coco_image_ids(dataset), boxes, strict=True)
        for bbox, score in zip(found.bboxes, found.scores.tolist(), strict=True)
    ]
