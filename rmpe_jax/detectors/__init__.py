"""Where boxes come from: files, ground truth, networks."""

from rmpe_jax.detectors.factory import open_detector
from rmpe_jax.detectors.protocol import Boxes, Detector

__all__ = ["Boxes", "Detector", "open_detector"]
