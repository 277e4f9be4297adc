"""Visualization: poses drawn on images, videos, contact sheets and learning curves.

This package only needs OpenCV. Import `sheets` and `curves`, which need more, by name.
"""

from rmpe_jax.visualize.poses import draw_poses
from rmpe_jax.visualize.video import VideoFile

__all__ = ["VideoFile", "draw_poses"]
