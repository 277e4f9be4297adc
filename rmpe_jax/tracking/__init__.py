"""Who is who over a video: identities for the poses that were found in each frame."""

from rmpe_jax.tracking.detections import Detections
from rmpe_jax.tracking.params import FlowParams, TrackParams
from rmpe_jax.tracking.pose_flow import track_by_pose_flow
from rmpe_jax.tracking.state import TrackState, start_tracks
from rmpe_jax.tracking.tracker import track_frame, track_video

__all__ = [
    "Detections",
    "FlowParams",
    "TrackParams",
    "TrackState",
    "start_tracks",
    "track_by_pose_flow",
    "track_frame",
    "track_video",
]
