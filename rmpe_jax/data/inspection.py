"""Finds labels that cannot belong to their image, and counts who is trained on and who is not.

Labels in fractions of the image, labels of a resized or turned copy, and boxes in another format
raise no error by themselves: the loss is 0, or AP is. The margins here are wide: of 877 people of
COCO and 2,301 of MPII nobody is suspicious, and of the 9,000 of LSP Extended one is.
"""

import collections
import concurrent.futures
import dataclasses
import enum
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from rmpe_jax.data.images import ImageError, image_size, read_encoded
from rmpe_jax.data.readers.records import ImageRecord, PoseDataset, pick_joints
from rmpe_jax.errors import UserError
from rmpe_jax.ops import geometry
from rmpe_jax.skeletons import Skeleton

MAX_SUSPICIOUS = 0.2  # by default a larger fraction of people, boxes or images is an error
WARNING_FRACTION = 0.01  # from here on there is a warning
SAMPLE = 200  # images of a dataset whose size is read before training or evaluation

FRACTION_LIMIT = 1.5  # boxes and joints entirely within this many pixels of (0, 0) are fractions
BBOX_INSIDE = 0.5  # fraction of a box's area that must be inside of the image
IMAGE_MARGIN = 0.02  # of the image's longer side, by which joints may be outside of the image
BBOX_MARGIN = 0.25  # of the box's longer side, by which joints may be outside of the box
SIZE_TOLERANCE = 2  # pixels, because declared sizes may be rounded

_THREADS = 8  # read image files; on network file systems they mostly wait


class Suspicion(enum.Enum):
    """What is wrong with labels or images, in words."""

    BBOX_FRACTIONS = "boxes in fractions of the image instead of pixels"
    KEYPOINT_FRACTIONS = "joints in fractions of the image instead of pixels"
    BBOX_OUTSIDE_IMAGE = "boxes mostly outside of the image"
    KEYPOINTS_OUTSIDE_IMAGE = "joints outside of the image"
    KEYPOINTS_OUTSIDE_BBOX = "most joints outside of the box"
    TURNED_IMAGE = "width and height exchanged, as in turned copies"
    RESIZED_IMAGE = "another size, as in resized copies"


def suspicious_bboxes(
    bboxes: Float[np.ndarray, "n 4"], sizes: Int[np.ndarray, "n 2"]
) -> dict[Suspicion, Bool[np.ndarray, " n"]]:
    """Which boxes cannot belong to their image; at most one suspicion applies to each.

    Args:
      bboxes: xyxy image pixels.
      sizes: (height, width) of the image of each box.
    """
    bboxes = bboxes.astype(np.float64)  # the area of a huge box overflows in float32
    inside = geometry.box_area(np.clip(bboxes, 0, sizes[:, [1, 0, 1, 0]]))
    return _first(
        {
            Suspicion.BBOX_FRACTIONS: (np.abs(bboxes) <= FRACTION_LIMIT).all(-1),
            Suspicion.BBOX_OUTSIDE_IMAGE: inside < BBOX_INSIDE * geometry.box_area(bboxes),
        }
    )


def suspicious_people(
    keypoints: Float[np.ndarray, "n k 2"],
    visibility: UInt8[np.ndarray, "n k"],
    bboxes: Float[np.ndarray, "n 4"],
    sizes: Int[np.ndarray, "n 2"],
) -> dict[Suspicion, Bool[np.ndarray, " n"]]:
    """Which people's labels cannot belong to their image; at most one suspicion applies to each.

    Args:
      keypoints: image pixels, arbitrary where visibility is 0.
      visibility: as in `ImageRecord`.
      bboxes: xyxy image pixels.
      sizes: (height, width) of the image of each person.
    """
    labeled = visibility > 0
    small = (np.abs(keypoints) <= FRACTION_LIMIT).all(-1)
    edge = IMAGE_MARGIN * sizes.max(-1)[:, None, None]
    outside_image = labeled & _outside(keypoints, -edge, sizes[:, None, ::-1] + edge)
    low, high = bboxes[:, None, :2], bboxes[:, None, 2:]
    margin = BBOX_MARGIN * (high - low).max(-1, keepdims=True)
    outside_bbox = labeled & _outside(keypoints, low - margin, high + margin)
    of_bboxes = suspicious_bboxes(bboxes, sizes)
    return _first(
        {
            Suspicion.BBOX_FRACTIONS: of_bboxes[Suspicion.BBOX_FRACTIONS],
            Suspicion.KEYPOINT_FRACTIONS: labeled.any(-1) & (small | ~labeled).all(-1),
            Suspicion.BBOX_OUTSIDE_IMAGE: of_bboxes[Suspicion.BBOX_OUTSIDE_IMAGE],
            Suspicion.KEYPOINTS_OUTSIDE_IMAGE: outside_image.any(-1),
            Suspicion.KEYPOINTS_OUTSIDE_BBOX: outside_bbox.sum(-1) > labeled.sum(-1) / 2,
        }
    )


def suspicious_size(declared: tuple[int, int], size: tuple[int, int]) -> Suspicion | None:
    """What is wrong with an image of another size than the annotation file declares.

    Args:
      declared: (width, height) in the annotation file.
      size: (height, width) of the image file.
    """
    if _close(declared, size[::-1]):
        return None
    return Suspicion.TURNED_IMAGE if _close(declared, size) else Suspicion.RESIZED_IMAGE


def _outside(points: np.ndarray, low: np.ndarray, high: np.ndarray) -> Any:
    """(n, k) bool."""
    return ((points < low) | (points > high)).any(-1)


def _first(flags: dict[Suspicion, Any]) -> dict[Suspicion, Bool[np.ndarray, " n"]]:
    """The flags, each without the places where an earlier one is set."""
    taken, result = np.bool_(False), {}
    for suspicion, flag in flags.items():
        result[suspicion] = flag & ~taken
        taken = taken | flag
    return result


def _close(a: tuple[int, int], b: tuple[int, int]) -> bool:
    return max(abs(a[0] - b[0]), abs(a[1] - b[1])) <= SIZE_TOLERANCE


@dataclasses.dataclass
class Findings:
    """How many people, boxes or images of a dataset or file are suspicious, and why.

    Attributes:
      noun: what is inspected: "people", "boxes" or "images".
      inspected: their number.
      counts: number of suspicious ones, by suspicion.
      first: names the first suspicious one.
    """

    noun: str
    inspected: int = 0
    counts: collections.Counter[Suspicion] = dataclasses.field(default_factory=collections.Counter)
    first: str = ""

    @property
    def suspicious(self) -> int:
        """Number of suspicious ones."""
        return self.counts.total()

    def add(self, suspicion: Suspicion, names: Iterable[str]) -> None:
        """Count suspicious ones, given by their names."""
        for name in names:
            self.counts[suspicion] += 1
            self.first = self.first or name

    def require_few(self, name: str, max_suspicious: float, option: str) -> None:
        """Raise an error if many are suspicious.

        Args:
          name: of the dataset or file, for the message.
          max_suspicious: the largest fraction that is allowed.
          option: how a user allows a larger fraction, for the message.

        Raises:
          UserError: more than `max_suspicious` are.
        """
        if self.suspicious > max_suspicious * self.inspected:
            line = f"{self._line(name)}; {_ADVICE[self.noun]}, or go on with {option}"
            raise UserError(line)

    def warn(self, name: str) -> None:
        """Log a warning if at least the fraction `WARNING_FRACTION` is suspicious."""
        if self.suspicious and self.suspicious >= WARNING_FRACTION * self.inspected:
            logging.getLogger(__name__).warning("%s", self._line(name))

    def _line(self, name: str) -> str:
        reasons = ", ".join(f"{reason.value} ({n:,})" for reason, n in self.counts.most_common())
        subject = f"{self.suspicious:,} of {self.inspected:,} {self.noun}"
        return f"{name}: {subject} {_MISFIT[self.noun]}: {reasons}; the first: {self.first}"


_MISFIT = {
    "people": "have labels that do not fit their image",
    "boxes": "do not fit their image",
    "images": "do not have the width and height that the annotation file declares",
}
_ADVICE = {
    "people": "give joints and boxes (COCO: x, y, width, height) in pixels of the stored image",
    "boxes": "give x, y, width, height in pixels of the stored image",
    "images": "use the image files that were annotated (EXIF orientation is not applied)",
}


class _People(NamedTuple):
    """The n people of several images."""

    keypoints: Float[np.ndarray, "n k 2"]
    visibility: UInt8[np.ndarray, "n k"]
    bboxes: Float[np.ndarray, "n 4"]
    iscrowd: Bool[np.ndarray, " n"]
    person_ids: Int[np.ndarray, " n"]
    record_index: Int[np.ndarray, " n"]


@dataclasses.dataclass
class Inspection:
    """Counts of one dataset.

    Attributes:
      name: of the dataset.
      joints_used: indices of the joints that are used, -1 for joints that the dataset lacks. If it
        is empty, only boxes are used, of labeled and unlabeled people.
      images: with people who are used.
      people: who are used.
      joints: labeled joints of these people.
      unlabeled: people who are skipped because none of the joints is labeled.
      crowds: regions of several people, which are skipped.
      no_area: people and crowds whose box has no area; the reader has skipped them.
      labels: which of the people who are used are suspicious.
      sizes: which of the images do not have the declared size.
    """

    name: str
    joints_used: Int[np.ndarray, " j"]
    images: int = 0
    people: int = 0
    joints: int = 0
    unlabeled: int = 0
    crowds: int = 0
    no_area: int = 0
    labels: Findings = dataclasses.field(default_factory=lambda: Findings("people"))
    sizes: Findings = dataclasses.field(default_factory=lambda: Findings("images"))

    def add(self, records: Sequence[ImageRecord], sizes: Sequence[tuple[int, int] | None]) -> None:
        """Count images and their people.

        Args:
          records: the images.
          sizes: (height, width) of each image file; None where it is not known. Then the declared
            size counts, and without that the labels are not inspected.
        """
        if not records:
            return
        people = self._gather(records)
        labeled = (people.visibility > 0).any(-1)
        used = ~people.iscrowd & (geometry.box_area(people.bboxes) > 0)
        if len(self.joints_used):
            used &= labeled
            self.unlabeled += int((~people.iscrowd & ~labeled).sum())
        self.crowds += int(people.iscrowd.sum())
        self.images += len(np.unique(people.record_index[used]))
        self.people += int(used.sum())
        self.joints += int((people.visibility[used] > 0).sum())
        for record, size in zip(records, sizes, strict=True):
            self._compare_size(record, size)
        known = _known_sizes(records, sizes)[people.record_index]
        used &= known.all(-1)
        self.labels.inspected += int(used.sum())
        found = suspicious_people(people.keypoints, people.visibility, people.bboxes, known)
        for suspicion, flags in found.items():
            for i in np.flatnonzero(flags & used).tolist():
                file = records[people.record_index[i]].path.name
                self.labels.add(suspicion, [f"annotation {people.person_ids[i]} of {file}"])

    def _gather(self, records: Sequence[ImageRecord]) -> _People:
        keypoints, visibility = pick_joints(
            np.concatenate([record.keypoints for record in records]),
            np.concatenate([record.visibility for record in records]),
            self.joints_used,
        )
        return _People(
            keypoints,
            visibility,
            np.concatenate([record.bboxes for record in records]),
            np.concatenate([record.iscrowd for record in records]),
            np.concatenate([record.person_ids for record in records]),
            np.repeat(np.arange(len(records)), [len(record.bboxes) for record in records]),
        )

    def _compare_size(self, record: ImageRecord, size: tuple[int, int] | None) -> None:
        if not size or not record.declared_size:
            return
        self.sizes.inspected += 1
        if suspicion := suspicious_size(record.declared_size, size):
            width, height = record.declared_size
            shown = f"{record.path} is {size[1]}x{size[0]} instead of {width}x{height}"
            self.sizes.add(suspicion, [shown])

    @property
    def all_used(self) -> bool:
        """Whether nobody is skipped and nothing is suspicious."""
        skipped = self.unlabeled + self.crowds + self.no_area
        return not skipped + self.labels.suspicious + self.sizes.suspicious

    def require_people(self, purpose: str) -> None:
        """Raises a UserError if there are no people for `purpose`, such as "train on"."""
        if self.people:
            return
        skipped = {
            "people without labeled joints": self.unlabeled,
            "crowds": self.crowds,
            "boxes without area": self.no_area,
        }
        reasons = ", ".join(f"{count:,} {what}" for what, count in skipped.items() if count)
        line = f"{self.name} has no people to {purpose}: {reasons or 'no annotations'}"
        raise UserError(f"{line}; use another dataset or skeleton")

    def require_few(self, max_suspicious: float, option: str) -> None:
        """Raises a UserError if many images or people are suspicious; see `Findings`."""
        self.sizes.require_few(self.name, max_suspicious, option)
        self.labels.require_few(self.name, max_suspicious, option)

    def warn(self) -> None:
        """Log a warning if more than a few images or people are suspicious."""
        self.sizes.warn(self.name)
        self.labels.warn(self.name)

    def rows(self) -> dict[str, int]:
        """The counts by their names in a `summary_table`."""
        return {
            "images": self.images,
            "people": self.people,
            "joints": self.joints,
            "suspicious people": self.labels.suspicious,
            "images of another size": self.sizes.suspicious,
            "skipped: people without labeled joints": self.unlabeled,
            "skipped: crowds": self.crowds,
            "skipped: boxes without area": self.no_area,
        }


def summary_table(columns: Sequence[tuple[str, Mapping[str, int]]]) -> str:
    """A text table of counts, without the rows in which all are 0.

    Args:
      columns: the title of each column and its counts by row; all have the same rows.
    """
    names = [name for name in columns[0][1] if any(counts[name] for _, counts in columns)]
    left = max(map(len, names), default=0)
    lines = [" " * left] + [f"{name:<{left}}" for name in names]
    for title, counts in columns:
        cells = [title, *(f"{counts[name]:,}" for name in names)]
        width = max(map(len, cells))
        lines = [f"{line}  {cell:>{width}}" for line, cell in zip(lines, cells, strict=True)]
    return "\n".join(lines)


def inspect_dataset(
    dataset: PoseDataset,
    skeleton: Skeleton | None,
    sizes: Mapping[int, tuple[int, int]],
) -> Inspection:
    """Inspect the labels of a dataset without reading its images.

    Args:
      dataset: the labels.
      skeleton: the joints that are used; None if only boxes are.
      sizes: (height, width) of images by index, as from `sample_sizes`.
    """
    indices = skeleton.indices_in(dataset.skeleton) if skeleton else np.zeros(0, np.int64)
    inspection = Inspection(dataset.name, indices, no_area=dataset.num_without_area)
    inspection.add(dataset.images, [sizes.get(i) for i in range(len(dataset.images))])
    return inspection


def inspect_detections(
    dataset: PoseDataset,
    image_index: Int[np.ndarray, " m"],
    bboxes: Float[np.ndarray, "m 4"],
    sizes: Mapping[int, tuple[int, int]],
) -> Findings:
    """Inspect a detector's boxes on the images of a dataset.

    Args:
      dataset: the images.
      image_index: index into `dataset.images` of each box.
      bboxes: xyxy image pixels.
      sizes: (height, width) of images by index; others have their declared size, and boxes on
        images without one are not inspected.
    """
    known = _known_sizes(dataset.images, [sizes.get(i) for i in range(len(dataset.images))])
    inspected = known[image_index].all(-1)
    image_index, bboxes = image_index[inspected], bboxes[inspected]
    findings = Findings("boxes", len(bboxes))
    for suspicion, flags in suspicious_bboxes(bboxes, known[image_index]).items():
        for i in np.flatnonzero(flags).tolist():
            x, y, right, bottom = bboxes[i].tolist()
            box = f"[{x:.6g}, {y:.6g}, {right - x:.6g}, {bottom - y:.6g}]"
            findings.add(suspicion, [f"{box} on {dataset.images[image_index[i]].path.name}"])
    return findings


def _known_sizes(
    records: Sequence[ImageRecord], sizes: Sequence[tuple[int, int] | None]
) -> Int[np.ndarray, "m 2"]:
    """(height, width) of each image: that of the file, else the declared one, else (0, 0)."""
    pairs = zip(records, sizes, strict=True)
    return np.array([size or (record.declared_size or (0, 0))[::-1] for record, size in pairs])


def sample_sizes(dataset: PoseDataset) -> dict[int, tuple[int, int]]:
    """(height, width) by index of up to `SAMPLE` images with people, spread evenly.

    Unreadable images are left out: whoever uses them reports them.
    """
    with_people = np.flatnonzero([len(record.bboxes) > 0 for record in dataset.images])
    places = np.linspace(0, len(with_people) - 1, min(len(with_people), SAMPLE)).astype(np.int64)
    chosen = with_people[places].tolist()
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        sizes = pool.map(_read_size, [dataset.images[index] for index in chosen])
        return {i: size for i, size in zip(chosen, sizes, strict=True) if size}


def _read_size(record: ImageRecord) -> tuple[int, int] | None:
    try:
        return image_size(read_encoded(record.path), str(record.path))
    except ImageError:
        return None
