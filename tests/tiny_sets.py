"""Datasets of a few images and people, written to a folder, and encoded image files."""

import json
import pathlib

import cv2
import numpy as np
import scipy.io

from rmpe_jax.skeletons import COCO, CROWDPOSE, LSP, MPII, Skeleton


def raster(seed: int, size: tuple[int, int] = (60, 80)) -> np.ndarray:
    """A smooth random image, uint8 RGB."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return cv2.resize(coarse, size[::-1], interpolation=cv2.INTER_CUBIC)


def encode(image: np.ndarray, extension: str = ".png", *options: int) -> bytes:
    """An encoded image file of RGB(A) or gray pixels."""
    if image.ndim == 3:
        image = image[..., [2, 1, 0, 3][: image.shape[-1]]]
    return cv2.imencode(extension, image, options)[1].tobytes()


def exif_orientation(orientation: int, payload: bytes = b"") -> bytes:
    """An EXIF segment for a JPEG: one entry, tag 0x0112, and `payload` behind it."""
    entry = b"\x01\x12\x00\x03\x00\x00\x00\x01" + orientation.to_bytes(2) + b"\x00\x00"
    tiff = b"MM\x00\x2a\x00\x00\x00\x08" + b"\x00\x01" + entry + b"\x00\x00\x00\x00"
    body = b"Exif\x00\x00" + tiff + payload
    return b"\xff\xe1" + (len(body) + 2).to_bytes(2) + body


def person(seed: int, skeleton: Skeleton) -> np.ndarray:
    """Joints (k, 3) of x, y, visibility 1 or 2 inside the image of `raster`."""
    rng = np.random.default_rng(seed)
    joints = rng.uniform((5, 5, 0), (75, 55, 0), (skeleton.num_keypoints, 3)).round(2)
    joints[:, 2] = rng.integers(1, 3, len(joints))
    return joints


def coco_annotation(
    annotation_id: int, image_id: int, skeleton: Skeleton = COCO, **changes
) -> dict:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "iscrowd": 0,
        "bbox": [4.5, 6.25, 70.0, 48.5],
        "area": 1234.5,
        "num_keypoints": skeleton.num_keypoints,
        "keypoints": person(annotation_id, skeleton).ravel().tolist(),
    } | changes


def coco_document(skeleton: Skeleton = COCO) -> dict:
    """Three images: one person; one person, an unlabeled person and a crowd; no people."""
    unlabeled = [0.0] * 3 * skeleton.num_keypoints
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "height": 60, "width": 80} for i in (7, 8, 9)
        ],
        "annotations": [
            coco_annotation(100, 8, skeleton),
            coco_annotation(101, 7, skeleton, bbox=[10.0, 10.0, 60.0, 40.0]),
            coco_annotation(102, 8, skeleton, keypoints=unlabeled, num_keypoints=0),
            coco_annotation(103, 8, skeleton, keypoints=unlabeled, num_keypoints=0, iscrowd=1),
        ],
        "categories": [{"id": 1, "name": "person"}],
    }


def write_json(path: pathlib.Path, document) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def write_images(folder: pathlib.Path, names) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        (folder / name).write_bytes(encode(raster(seed), pathlib.Path(name).suffix))


def write_coco(folder: pathlib.Path, split: str = "mini", document: dict | None = None):
    document = document or coco_document()
    write_json(folder / "annotations" / f"person_keypoints_{split}.json", document)
    write_images(folder / split, [image["file_name"] for image in document["images"]])
    return folder


def write_crowdpose(folder: pathlib.Path, split: str = "mini"):
    document = coco_document(CROWDPOSE)
    for annotation in document["annotations"]:
        del annotation["area"]
    for image in document["images"]:
        image["crowdIndex"] = 0.5
    write_json(folder / "json" / f"crowdpose_{split}.json", document)
    write_images(folder / "images", [image["file_name"] for image in document["images"]])
    return folder


def mpii_entry(seed: int, image: str, **changes) -> dict:
    joints = person(seed, MPII)
    return {
        "image": image,
        "joints": joints[:, :2].tolist(),
        "joints_vis": [1] * MPII.num_keypoints,
        "bbox": [3.5, 4.5, 60.0, 50.0],
        "head_size": 9.5,
    } | changes


def write_mpii(folder: pathlib.Path, split: str = "mini", entries: list | None = None):
    if entries is None:
        entries = [mpii_entry(0, "a.jpg"), mpii_entry(1, "b.jpg"), mpii_entry(2, "a.jpg")]
    write_json(folder / "annotations" / f"{split}.json", entries)
    write_images(folder / "images", sorted({entry["image"] for entry in entries}))
    return folder


def write_lsp(folder: pathlib.Path, people: int = 3, extended: bool = True):
    """`joints.mat` of joints (n, 14, 3) in the layout of either dataset, and its images."""
    joints = np.stack([person(seed, LSP) for seed in range(people)])
    joints[..., 2] -= 1  # flags 0 and 1
    folder.mkdir(parents=True, exist_ok=True)
    axes = (1, 2, 0) if extended else (2, 1, 0)
    scipy.io.savemat(folder / "joints.mat", {"joints": joints.transpose(axes)})
    digits = 5 if extended else 4
    write_images(folder / "images", [f"im{i + 1:0{digits}d}.jpg" for i in range(people)])
    return joints
