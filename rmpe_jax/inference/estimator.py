"""Poses of the people in a picture, in one call; and the same, compiled once, for many pictures."""

import itertools
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Self

import jax
import numpy as np
from jaxtyping import Float, Int, UInt8

from rmpe_jax.data.images import read_image
from rmpe_jax.detectors import Boxes, Detector, open_detector
from rmpe_jax.errors import UserError
from rmpe_jax.inference.poses import Poses
from rmpe_jax.model_io.pose_model import PoseModel, load_pose_model
from rmpe_jax.models.folding import fold_batch_norm
from rmpe_jax.ops import geometry
from rmpe_jax.pose_nms import PoseNmsParams, load_params
from rmpe_jax.top_down.program import People, make_program

_SMALLEST_PICTURE = 2**19  # pixels that pictures are padded to, and four times as many, ...
_SMALLEST_CROWD = 32  # likewise people
_GROWTH = 4
_LARGEST_BOX = 4  # in sides of the picture


class PoseEstimator:
    """Finds poses, in boxes that are given or that a detector finds.

    Cropping, network, decoding and pose NMS are one compiled program. Pictures and people are
    padded to few sizes: there is one compilation for all pictures of up to half a megapixel with up
    to 32 people, one more for up to two megapixels, and so on. `entry.use_compilation_cache` keeps
    them on the disk. Instances may be shared by threads.

    Attributes:
      skeleton: the joints of the poses.
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
        """Build the program; `from_checkpoint` reads the model first.

        Args:
          model: the network.
          detector: of `predict` and `predict_batch`.
          nms: parameters of pose NMS; by default the model's own, or else AlphaPose's.
          flip_test: look at mirrored crops too, which takes twice the time.
          batch_size: pictures that `predict_batch` and `estimate_batch` look at together; by
            default 8, or 1 on a CPU.
          chunk: people that the network looks at together, which bounds the memory: a divisor of
            32; by default 32, or 4 on a CPU.

        Raises:
          UserError: the model's spec and weights do not belong together.
        """
        on_cpu = jax.default_backend() == "cpu"
        chunk = chunk or (4 if on_cpu else _SMALLEST_CROWD)
        if _SMALLEST_CROWD % chunk:
            raise UserError(f"chunk={chunk} cannot be: it must divide {_SMALLEST_CROWD}")
        self.skeleton = model.spec.skeleton
        self.batch_size = batch_size or (1 if on_cpu else 8)
        self._detector = detector
        self._nms = nms or model.nms or PoseNmsParams.default(self.skeleton)
        network, codec = model.build()
        folded, variables = fold_batch_norm(network, model.variables, codec.input_size)
        self._variables = jax.device_put(variables)
        self._program = make_program(
            folded,
            codec,
            self.skeleton,
            padding=model.spec.padding,
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
    ) -> Self:
        """The estimator of a trained network.

        Args:
          path: a model file, a training run's workdir or checkpoints, or "builtin"; see
            `pose_model.load_pose_model`.
          detector: see above, or in words as `detectors.open_detector` takes it, or the workdir of
            a detector's training run; by default the one that comes with the package.
          nms: see above, or a preset's name, or a file of `rmpe fit-nms`.
          flip_test: see above.
          batch_size: see above.
          chunk: see above.

        Raises:
          UserError: model, detector or parameters cannot be used.
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
        self,
        image: UInt8[np.ndarray, "h w *c"],
        bboxes: Float[np.ndarray, "n 4"],
        bbox_scores: Float[np.ndarray, " n"] | None = None,
    ) -> Poses:
        """Poses of the people in boxes.

        Boxes that are not finite, have no area, do not meet the picture, or are more than four
        times as large as it, are left out.

        Args:
          image: RGB or grey.
          bboxes: xyxy image pixels, edges.
          bbox_scores: the detector's; 1 if not given.

        Raises:
          UserError: image or boxes are of another form.
        """
        bboxes = np.asarray(bboxes, np.float32)
        scores = np.ones(len(bboxes)) if bbox_scores is None else bbox_scores
        boxes = Boxes(bboxes, np.asarray(scores, np.float32))
        return next(self._run([as_rgb(image)], [boxes], 1))

    def estimate_batch(
        self, images: Sequence[UInt8[np.ndarray, "h w *c"]], boxes: Sequence[Boxes]
    ) -> list[Poses]:
        """`estimate` for many pictures, `batch_size` of them at a time."""
        return list(self._run([as_rgb(image) for image in images], boxes, self.batch_size))

    def predict(
        self, image: UInt8[np.ndarray, "h w *c"] | str | os.PathLike, name: str = ""
    ) -> Poses:
        """Poses of the people that the detector finds.

        Args:
          image: RGB or gray, or the path of an image file, which is turned upright by its EXIF tag.
          name: file name of the image, for detectors that look boxes up by it; by default that of
            the path.

        Raises:
          UserError: there is no detector, or the image cannot be used.
        """
        if isinstance(image, str | os.PathLike):
            name = name or pathlib.Path(image).name
            image = read_image(image, upright=True)
        image = as_rgb(image)
        return next(self._run([image], [self.detect(image, name)], 1))

    def predict_batch(
        self,
        images: Sequence[UInt8[np.ndarray, "h w *c"]],
        names: Sequence[str] | None = None,
    ) -> list[Poses]:
        """`predict` for many pictures, `batch_size` of them at a time."""
        rgb = [as_rgb(image) for image in images]
        names = names or [""] * len(rgb)
        boxes = [self.detect(image, name) for image, name in zip(rgb, names, strict=True)]
        return list(self._run(rgb, boxes, self.batch_size))

    def detect(self, image: UInt8[np.ndarray, "h w 3"], name: str = "") -> Boxes:
        """What the detector finds.

        Raises:
          UserError: there is none.
        """
        if self._detector is None:
            raise UserError("there is no detector: give one to the estimator, or boxes to estimate")
        return self._detector(image, name)

    def _run(
        self,
        images: Sequence[UInt8[np.ndarray, "h w 3"]],
        boxes: Sequence[Boxes],
        batch_size: int,
    ) -> Iterator[Poses]:
        pairs = iter(zip(images, boxes, strict=True))
        while group := list(itertools.islice(pairs, batch_size)):
            people = _people_of(group)
            if not people.count:
                yield from (Poses.none(self.skeleton.num_keypoints) for _ in group)
                continue
            pictures, sizes = _stacked([image for image, _ in group], batch_size)
            found = self._program(self._variables, pictures, sizes, people, self._nms)
            keypoints, keypoint_scores, scores, keep, _ = jax.device_get(found)
            for index in range(len(group)):
                rows = np.flatnonzero(keep & (people.picture == index))
                rows = rows[np.argsort(-scores[rows], kind="stable")]
                yield Poses(
                    keypoints[rows],
                    keypoint_scores[rows],
                    scores[rows],
                    people.bboxes[rows],
                    people.bbox_scores[rows],
                )


def _people_of(group: Sequence[tuple[UInt8[np.ndarray, "h w 3"], Boxes]]) -> People:
    """The usable boxes of some pictures, padded."""
    columns: list[tuple[np.ndarray, ...]] = []
    for index, (image, boxes) in enumerate(group):
        bboxes, scores = boxes
        if bboxes.shape != (len(scores), 4):
            raise UserError(
                f"boxes of the shapes {bboxes.shape} and {scores.shape}: give (n, 4) and (n,)"
            )
        usable = _usable(bboxes, image.shape[:2])
        picture = np.full(usable.sum(), index, np.int32)
        columns.append((picture, bboxes[usable], scores[usable]))
    picture, bboxes, scores = (np.concatenate(c) for c in zip(*columns, strict=True))
    count = len(picture)
    size = _padded(count, _SMALLEST_CROWD)
    nobody = np.full(size, -1, np.int32), np.zeros((size, 4), "f"), np.zeros(size, "f")
    for rows, values in zip(nobody, (picture, bboxes, scores), strict=True):
        rows[:count] = values
    return People(*nobody, np.int32(count))


def _usable(bboxes: Float[np.ndarray, "n 4"], size: tuple[int, int]) -> np.ndarray:
    """Boxes of some area that show a part of a picture of `size`."""
    finite = np.isfinite(bboxes).all(-1)
    sides = bboxes[:, 2:] - bboxes[:, :2]
    seen = geometry.box_area(geometry.clip_boxes(bboxes, size)) > 0
    return finite & (sides > 0).all(-1) & (sides <= _LARGEST_BOX * max(size)).all(-1) & seen


def _stacked(
    images: Sequence[UInt8[np.ndarray, "h w 3"]], count: int
) -> tuple[UInt8[np.ndarray, "p l 3"], Int[np.ndarray, "p 2"]]:
    """`count` pictures as rows of pixels, the last of them empty if there are too few."""
    pixels = max(image.shape[0] * image.shape[1] for image in images)
    pictures = np.zeros((count, _padded(pixels, _SMALLEST_PICTURE), 3), np.uint8)
    sizes = np.zeros((count, 2), np.int32)
    for index, image in enumerate(images):
        sizes[index] = image.shape[:2]
        pictures[index, : image.shape[0] * image.shape[1]] = image.reshape(-1, 3)
    return pictures, sizes


def _padded(count: int, smallest: int) -> int:
    while smallest < count:
        smallest *= _GROWTH
    return smallest


def as_rgb(image: UInt8[np.ndarray, "h w *c"]) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of three channels: grey is repeated, an alpha channel is dropped.

    Raises:
      UserError: it is not (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) uint8, or is empty.
    """
    image = np.asarray(image)
    gray = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 or gray.ndim != 3 or gray.shape[2] not in (1, 3, 4) or not gray.size:
        raise UserError(
            f"a picture of shape {image.shape} and type {image.dtype}: give (height, width, 3) of "
            "uint8, RGB"
        )
    return np.repeat(gray, 3, 2) if gray.shape[2] == 1 else gray[..., :3]
