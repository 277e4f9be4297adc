"""Detectors of people: boxes from networks, files and ground truth."""

from rmpe_jax.detectors.factory import open_detector
from rmpe_jax.detectors.protocol import Boxes, Detector

__all__ = ["Boxes", "Detector", "open_detector"]
