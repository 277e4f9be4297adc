"""The tracks of a video between two frames."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.errors import UserError
from rmpe_jax.tracking import kalman
from rmpe_jax.tracking.kalman import Motion


class TrackState(NamedTuple):
    """All tracks of a video after a frame; places without a track have arbitrary values.

    Attributes:
      box: center and size of the boxes, (t, 2, 2) image pixels.
      joints: (t, k, 2) image pixels.
      joint_sure: where the joint was found when the track was found last.
      ids: 1 and up, 0 where there is no track.
      num_missed: frames in a row in which it was missed until this frame.
      next_id: of the next track.
      num_without_room: people of all frames so far who should have started a track, but there was
        no room. If it is not 0, use more tracks.
    """

    box: Motion
    joints: Motion
    joint_sure: Bool[Array, "t k"]
    ids: Int[Array, " t"]
    num_missed: Int[Array, " t"]
    next_id: Int[Array, ""]
    num_without_room: Int[Array, ""]


def start_tracks(max_tracks: int, num_keypoints: int) -> TrackState:
    """The state before the first frame.

    Args:
      max_tracks: the most people who can be tracked at a time, those out of sight included.
      num_keypoints: k.

    Raises:
      UserError: there is no room for a track.
    """
    if max_tracks < 1:
        raise UserError(f"tracking has room for {max_tracks} tracks: use max_tracks of 1 or more")

    def motion(points: int) -> Motion:
        zeros = jnp.zeros((max_tracks, points, 2))
        return kalman.start(zeros, jnp.ones(()), jnp.ones(()))

    none = jnp.zeros(max_tracks, jnp.int32)
    return TrackState(
        box=motion(2),
        joints=motion(num_keypoints),
        joint_sure=jnp.zeros((max_tracks, num_keypoints), bool),
        ids=none,
        num_missed=none,
        next_id=jnp.ones((), jnp.int32),
        num_without_room=jnp.zeros((), jnp.int32),
    )


def center_and_size(bboxes: Float[Array, "n 4"]) -> Float[Array, "n 2 2"]:
    """Center and size of boxes in xyxy."""
    low, high = bboxes[:, :2], bboxes[:, 2:]
    return jnp.stack([(low + high) / 2, high - low], 1)


def longer_sides(box: Float[Array, "n 2 2"]) -> Float[Array, " n"]:
    """The longer side of boxes given as center and size, at least one pixel."""
    return jnp.maximum(box[:, 1].max(-1), 1)


def xyxy_boxes(box: Float[Array, "n 2 2"]) -> Float[Array, "n 4"]:
    """Boxes given as center and size in xyxy, at least one pixel wide and high."""
    half = jnp.maximum(box[:, 1], 1) / 2
    return jnp.concatenate([box[:, 0] - half, box[:, 0] + half], -1)
