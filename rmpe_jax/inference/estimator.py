"""Poses of the people in an image, in one call; compiled once for many images."""

import itertools
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from numpy.typing import ArrayLike

from rmpe_jax.data.images import read_image
from rmpe_jax.detectors import Boxes, Detector, open_detector
from rmpe_jax.errors import UserError
from rmpe_jax.inference.poses import Poses
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model
from rmpe_jax.ops import geometry
from rmpe_jax.pose_nms import PoseNmsParams, load_params
from rmpe_jax.top_down.estimation import BoxBatch, make_estimate_poses

# Images and people are padded to the smallest of these sizes that holds them, and each size is the
# one before it times the growth factor.
_MIN_PIXELS = 2**19
_MIN_PEOPLE = 32
_GROWTH = 4
_MAX_BOX_SIDE = 4  # in units of the image's longer side

# An RGB image of any size: images of one sequence may differ.
_RgbImage = UInt8[np.ndarray, "_height _width 3"]


class PoseEstimator:
    """Finds poses in given boxes, or in the boxes of a detector.

    Cropping, network, decoding and pose NMS are compiled as one function. Images and people are
    padded to few sizes. One compilation covers all images of up to half a megapixel with up to 32
    people, the next one images of up to two megapixels, and so on. `entry.use_compilation_cache`
    stores compiled functions on disk. Instances may be shared between threads.

    Attributes:
      skeleton: the joints of the poses.
      batch_size: images that `predict_batch` and `estimate_batch` process together.
    """

    def __init__(
        self,
        model: PoseModel,
        *,
        detector: Detector | None = None,
        nms: PoseNmsParams | None = None,
        flip_test: bool = False,
        batch_size: int | None = None,
        chunk: int | None = None,
    ) -> None:
        """Make an estimator of a model in memory; `from_checkpoint` reads the model first.

        Args:
          model: the network.
          detector: finds the boxes for `predict` and `predict_batch`.
          nms: parameters of pose NMS; by default the model's own, or else AlphaPose's.
          flip_test: also process mirrored crops, which takes twice the time.
          batch_size: images that `predict_batch` and `estimate_batch` process together; by default
            8, or 1 on a CPU.
          chunk: people that the network processes together, which limits the memory: a divisor of
            32; by default 32, or 4 on a CPU.

        Raises:
          UserError: `chunk` is invalid, or the model's spec and weights do not belong together.
        """
        on_cpu = jax.default_backend() == "cpu"
        chunk = chunk or (4 if on_cpu else _MIN_PEOPLE)
        if _MIN_PEOPLE % chunk:
            raise UserError(f"chunk={chunk} is invalid: it must divide {_MIN_PEOPLE}")
        self.skeleton = model.spec.skeleton
        self.batch_size = batch_size or (1 if on_cpu else 8)
        self._detector = detector
        # Boxes that are looked up by name refer to pixels as the file stores them.
        self._uses_stored_pixels = getattr(detector, "uses_stored_pixels", False)
        self._nms = nms or model.nms or PoseNmsParams.default(self.skeleton)
        network, variables, codec = model.fold(chunk)
        self._variables = jax.device_put(variables)
        self._estimate_poses = make_estimate_poses(
            network,
            codec,
            self.skeleton,
            model.spec.crop,
            chunk=chunk,
            flip_test=flip_test,
        )

    @classmethod
    def from_checkpoint(
        cls,
        path: str | os.PathLike = "builtin",
        *,
        detector: Detector | str | None = "builtin",
        nms: PoseNmsParams | str | None = None,
        flip_test: bool = False,
        batch_size: int | None = None,
        chunk: int | None = None,
    ) -> "PoseEstimator":
        """The estimator of a trained network.

        Args:
          path: a model file, a training run's workdir or checkpoints, or "builtin" or
            "builtin-small", which come with the package; see `pose_model.load_pose_model`.
          detector: a detector, or a string as in `detectors.open_detector`; by default the detector
            that comes with the package.
          nms: parameters of pose NMS, the name of a preset, or a file of `rmpe fit-nms`.
          flip_test: as in `__init__`.
          batch_size: as in `__init__`.
          chunk: as in `__init__`.

        Raises:
          UserError: the model, the detector or the parameters cannot be used.
        """
        if isinstance(detector, str):
            detector = open_detector(detector)
        nms = load_params(nms) if isinstance(nms, str) else nms
        return cls(
            load_pose_model(path),
            detector=detector,
            nms=nms,
            flip_test=flip_test,
            batch_size=batch_size,
            chunk=chunk,
        )

    def estimate(
        self, image: np.ndarray, bboxes: ArrayLike, bbox_scores: ArrayLike | None = None
    ) -> Poses:
        """Poses of the people in given boxes.

        Boxes are skipped if they or their scores are not finite, or if they have no area, lie
        outside the image, or have a side of more than four times the image's longer side.

        Args:
          image: uint8, RGB (h, w, 3), RGBA (h, w, 4) or gray (h, w) or (h, w, 1).
          bboxes: (n, 4) xyxy image pixels (edges); an empty list is no box.
          bbox_scores: (n,) the detector's; by default 1.

        Raises:
          UserError: the image or the boxes have other shapes or types.
        """
        boxes = _as_boxes(bboxes, bbox_scores)
        return next(self._poses_in_boxes([as_rgb(image)], [boxes], 1))

    def estimate_batch(self, images: Sequence[np.ndarray], boxes: Sequence[Boxes]) -> list[Poses]:
        """`estimate` for many images, `batch_size` of them at a time."""
        rgb = [as_rgb(image) for image in images]
        return list(self._poses_in_boxes(rgb, boxes, self.batch_size))

    def predict(self, image: np.ndarray | str | os.PathLike, name: str = "") -> Poses:
        """Poses of the people that the detector finds.

        Args:
          image: as in `estimate`, or the path of an image file; the EXIF orientation of a file is
            applied.
          name: file name of the image, for detectors that look boxes up by it; by default that of
            the path.

        Raises:
          UserError: there is no detector, or the image cannot be used.
        """
        if isinstance(image, str | os.PathLike):
            name = name or pathlib.Path(image).name
            image = read_image(image, upright=not self._uses_stored_pixels)
        image = as_rgb(image)
        return next(self._poses_in_boxes([image], [self.detect(image, name)], 1))

    def predict_batch(
        self, images: Sequence[np.ndarray], names: Sequence[str] | None = None
    ) -> list[Poses]:
        """`predict` for many images, `batch_size` of them at a time."""
        rgb = [as_rgb(image) for image in images]
        names = names or [""] * len(rgb)
        boxes = [self.detect(image, name) for image, name in zip(rgb, names, strict=True)]
        return list(self._poses_in_boxes(rgb, boxes, self.batch_size))

    def detect(self, image: UInt8[np.ndarray, "h w 3"], name: str = "") -> Boxes:
        """The detector's boxes of an image.

        Raises:
          UserError: there is no detector.
        """
        if self._detector is None:
            raise UserError("there is no detector: give one to the estimator, or boxes to estimate")
        return self._detector(image, name)

    def check_names(self, names: Iterable[str]) -> None:
        """Check, before a run, that the detector can tell images of these names apart.

        Only detectors that look boxes up by name cannot; they also log how many images lack boxes.

        Args:
          names: of all images, with folders.

        Raises:
          UserError: two images would have the same boxes.
        """
        if check := getattr(self._detector, "check_names", None):
            check(names)

    def _poses_in_boxes(
        self, images: Sequence[_RgbImage], boxes: Sequence[Boxes], batch_size: int
    ) -> Iterator[Poses]:
        """The poses of each image, computed for `batch_size` images at a time."""
        pairs = iter(zip(images, boxes, strict=True))
        while group := list(itertools.islice(pairs, batch_size)):
            batch = _box_batch(group)
            if not batch.count:
                yield from (Poses.none(self.skeleton.num_keypoints) for _ in group)
                continue
            pixels, sizes = _stack_pixels([image for image, _ in group], batch_size)
            result = self._estimate_poses(self._variables, pixels, sizes, batch, self._nms)
            keypoints, keypoint_scores, scores, keep, _ = jax.device_get(result)
            for index in range(len(group)):
                rows = np.flatnonzero(keep & (batch.image_index == index))
                rows = rows[np.argsort(-scores[rows], kind="stable")]
                yield Poses(
                    keypoints[rows],
                    keypoint_scores[rows],
                    scores[rows],
                    batch.bboxes[rows],
                    batch.scores[rows],
                )


def _as_boxes(bboxes: ArrayLike, scores: ArrayLike | None) -> Boxes:
    try:
        array = np.asarray(bboxes, np.float32)
        array = array if array.size else array.reshape(-1, 4)
        scores = np.ones(len(array)) if scores is None else scores
        return Boxes(array, np.asarray(scores, np.float32))
    except (TypeError, ValueError):
        raise UserError("boxes or scores are not arrays of numbers: give (n, 4) and (n,)") from None


def _box_batch(group: Sequence[tuple[_RgbImage, Boxes]]) -> BoxBatch:
    """The usable boxes of some images, padded."""
    columns: list[tuple[np.ndarray, ...]] = []
    for index, (image, (bboxes, scores)) in enumerate(group):
        if bboxes.shape != (len(bboxes), 4) or scores.shape != (len(bboxes),):
            raise UserError(
                f"boxes of the shapes {bboxes.shape} and {scores.shape}: give (n, 4) and (n,)"
            )
        usable = _usable(bboxes, image.shape[:2]) & np.isfinite(scores)
        image_index = np.full(usable.sum(), index, np.int32)
        columns.append((image_index, bboxes[usable], scores[usable]))
    image_index, bboxes, scores = (np.concatenate(c) for c in zip(*columns, strict=True))
    count = len(image_index)
    size = _padded_size(count, _MIN_PEOPLE)
    padded = np.full(size, -1, np.int32), np.zeros((size, 4), "f"), np.zeros(size, "f")
    for rows, values in zip(padded, (image_index, bboxes, scores), strict=True):
        rows[:count] = values
    return BoxBatch(*padded, np.int32(count))


def _usable(bboxes: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> Bool[np.ndarray, " n"]:
    """Which boxes are finite, have area, are not too large, and overlap an image of `size`."""
    finite = np.isfinite(bboxes).all(-1)
    sides = bboxes[:, 2:] - bboxes[:, :2]
    overlaps = geometry.box_area(geometry.clip_boxes(bboxes, size)) > 0
    max_side = _MAX_BOX_SIDE * max(size)
    return finite & (sides > 0).all(-1) & (sides <= max_side).all(-1) & overlaps


def _stack_pixels(
    images: Sequence[_RgbImage], count: int
) -> tuple[UInt8[np.ndarray, "i l 3"], Int[np.ndarray, "i 2"]]:
    """The pixels and sizes of `count` images, as `crop_people` takes them.

    If there are fewer images, the last ones are empty.
    """
    num_pixels = max(image.shape[0] * image.shape[1] for image in images)
    pixels = np.zeros((count, _padded_size(num_pixels, _MIN_PIXELS), 3), np.uint8)
    sizes = np.zeros((count, 2), np.int32)
    for index, image in enumerate(images):
        sizes[index] = image.shape[:2]
        pixels[index, : image.shape[0] * image.shape[1]] = image.reshape(-1, 3)
    return pixels, sizes


def _padded_size(count: int, smallest: int) -> int:
    while smallest < count:
        smallest *= _GROWTH
    return smallest


def as_rgb(image: np.ndarray) -> UInt8[np.ndarray, "h w 3"]:
    """The image with three channels: gray is repeated, an alpha channel is dropped.

    Raises:
      UserError: the image is not (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) uint8, or is empty.
    """
    image = np.asarray(image)
    gray = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or gray.ndim != 3 or gray.shape[2] not in (1, 3, 4) or not gray.size:
        raise UserError(
            f"an image of shape {image.shape} and type {image.dtype}: give (height, width, 3) of "
            "uint8, RGB"
        )
    return np.repeat(gray, 3, 2) if gray.shape[2] == 1 else gray[..., :3]
