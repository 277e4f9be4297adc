"""Pictures: poses drawn on them, videos, contact sheets, curves of a training.

Drawing needs OpenCV alone; `sheets` and `curves`, which need more, are imported by name.
"""

from rmpe_jax.visualize.poses import draw_poses
from rmpe_jax.visualize.video import VideoFile

__all__ = ["VideoFile", "draw_poses"]
