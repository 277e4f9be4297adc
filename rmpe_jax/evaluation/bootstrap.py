"""Intervals of average precision by the bootstrap: over images, and over the seeds of trainings.

A resample draws as many images, with replacement, as there are. Its AP is that of the drawn images.
Nothing is matched again, because matching is within images. Systems that are compared are scored on
the same resamples (paired), so that images that are hard for all of them cancel out.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

_RECALLS = np.linspace(0, 1, 101)  # as in pycocotools


class RankedPoses(NamedTuple):
    """How the poses of one system match, highest score first: all that AP depends on.

    Attributes:
      image: the number of each pose's image.
      hits: for each OKS threshold, the poses that match a person.
      misses: those that match nobody; poses that count neither way are in neither.
      people: number of people to find in each image.

    For MPII's mAP there is one for each joint: its poses are the joint in all poses, and its people
    are those with the joint annotated.
    """

    image: Int[np.ndarray, " d"]
    hits: Bool[np.ndarray, "t d"]
    misses: Bool[np.ndarray, "t d"]
    people: Int[np.ndarray, " i"]


def image_resamples(num_images: int, num_resamples: int, seed: int) -> Int[np.ndarray, "b i"]:
    """How often each image is drawn in each resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_images, np.full(num_images, 1 / num_images), num_resamples)


def resampled_ap(poses: RankedPoses, resamples: Int[np.ndarray, "b i"]) -> Float[np.ndarray, " b"]:
    """COCO's AP of each resample, a fraction; NaN where it has no people.

    With every image once, it is the AP of pycocotools. An image drawn twice counts as two images.
    """
    return np.array([_average_precision(poses, counts) for counts in resamples])


def resampled_map(
    joints: Sequence[RankedPoses], resamples: Int[np.ndarray, "b i"]
) -> Float[np.ndarray, " b"]:
    """MPII's mAP of each resample, in percent; NaN where it has no joints.

    With every image once, it is that of `mpii_map`, which however counts a joint as not found that
    is annotated only in images without poses. A joint that no drawn image has is left out of the
    mean.

    Args:
      joints: one for each joint, of `mpii.ranked_joints`; with one threshold.
      resamples: how often each image is drawn.
    """
    areas = [[_area(joint, counts) for joint in joints] for counts in resamples]
    return 100 * np.array([np.nanmean(a) if not np.isnan(a).all() else np.nan for a in areas])


def _area(poses: RankedPoses, counts: Int[np.ndarray, " i"]) -> float:
    """The area under the envelope of precision over recall, as in VOC 2012."""
    num_people = (counts * poses.people).sum()
    if not num_people:
        return float("nan")
    weights = counts[poses.image]
    hits = np.cumsum(poses.hits[0] * weights)
    misses = np.cumsum(poses.misses[0] * weights)
    precision = hits / np.maximum(hits + misses, 1)
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(hits, prepend=0) * envelope).sum() / num_people)


def _average_precision(poses: RankedPoses, counts: Int[np.ndarray, " i"]) -> float:
    num_people = (counts * poses.people).sum()
    if not num_people:
        return float("nan")
    weights = counts[poses.image]
    drawn = weights > 0
    hits = np.cumsum(poses.hits[:, drawn] * weights[drawn], -1)
    misses = np.cumsum(poses.misses[:, drawn] * weights[drawn], -1)
    precision = hits / np.maximum(hits + misses, 1)
    # The highest precision at this recall or a higher one; 0 at recalls that are not reached.
    envelope = np.maximum.accumulate(precision[:, ::-1], -1)[:, ::-1]
    envelope = np.pad(envelope, ((0, 0), (0, 1)))
    first = [np.searchsorted(recall, _RECALLS) for recall in hits / num_people]
    return float(np.take_along_axis(envelope, np.array(first), -1).mean())


def interval(
    values: Float[np.ndarray, "s b"], seed: int, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of the mean over the seeds of trainings.

    Each resample of images also draws the seeds, with replacement. With one seed only the images
    vary. With few seeds the interval is too narrow by about sqrt((s - 1) / s) in what the seeds
    contribute.

    Args:
      values: of each training seed and resample of images: AP, or the difference of two systems.
      seed: of the draws.
      level: the part of the resamples that the interval contains.
    """
    num_seeds, num_resamples = values.shape
    drawn = np.random.default_rng(seed).integers(num_seeds, size=(num_seeds, num_resamples))
    means = np.take_along_axis(values, drawn, 0).mean(0)
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
