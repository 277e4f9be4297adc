"""The tracker: identities from the predicted motion of poses and boxes, frame by frame.

Pure functions of arrays of a fixed size, for `jit`, `scan` over frames and `vmap` over videos. The
tracker knows no appearance: a person who comes back is recognized by place, size and motion alone.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.tracking import kalman
from rmpe_jax.tracking.association import associate, box_distance
from rmpe_jax.tracking.births import start_new_tracks
from rmpe_jax.tracking.detections import Detections, clean
from rmpe_jax.tracking.noise import box_variance, joint_variance
from rmpe_jax.tracking.params import TrackParams
from rmpe_jax.tracking.similarity import similarity
from rmpe_jax.tracking.state import (
    TrackState,
    center_and_size,
    longer_sides,
    start_tracks,
    xyxy_boxes,
)


@jax.jit
def track_frame(
    state: TrackState,
    detections: Detections,
    sigmas: Float[Any, " k"],
    params: TrackParams,
) -> tuple[TrackState, Int[Array, " n"]]:
    """Track the people of the next frame.

    Args:
      state: after the last frame, of `start_tracks` before the first.
      detections: the people of the frame, (n, ...) arrays.
      sigmas: per joint, as in `Skeleton.sigmas`.
      params: thresholds and noises.

    Returns:
      The state after this frame, and the id of each person: -1 where there is no person, or one who
      fits no track and starts none. No id is used twice in a video.
    """
    num_people = detections.valid.shape[0]
    people = jax.tree.map(jnp.asarray, detections)
    if num_people == 0:
        people = jax.tree.map(_one_row, people)
    people = clean(people)
    tracks = _predict(state, params)
    person = _associate(tracks, people, sigmas, params)
    tracks = _end(_update(tracks, people, person, params), params)
    tracks, born = start_new_tracks(tracks, people, person, params)
    person = jnp.where(born >= 0, born, person)
    place = jnp.where(person < 0, len(people.valid), person)
    ids = jnp.full(len(people.valid), -1, jnp.int32).at[place].set(tracks.ids, mode="drop")
    return tracks, ids[:num_people]


@functools.partial(jax.jit, static_argnames="max_tracks")
def track_video(
    detections: Detections,
    sigmas: Float[Any, " k"],
    params: TrackParams,
    max_tracks: int,
) -> Int[Array, "f n"]:
    """Track the people of a whole video.

    Args:
      detections: the people of each frame, (f, n, ...) arrays.
      sigmas: per joint, as in `Skeleton.sigmas`.
      params: thresholds and noises.
      max_tracks: the most people who can be tracked at a time, those out of sight included. To see
        whether that was enough, use `track_frame` and the state's `num_without_room`.

    Returns:
      The id of each person, as `track_frame` gives them.

    Raises:
      UserError: there is no room for a track.
    """
    state = start_tracks(max_tracks, detections.keypoints.shape[-2])
    step = functools.partial(track_frame, sigmas=sigmas, params=params)
    return jax.lax.scan(step, state, jax.tree.map(jnp.asarray, detections))[1]


def _one_row(values: Array) -> Array:
    """An array of zeros (0, ...) as one of (1, ...): one row of padding."""
    return jnp.zeros((1, *values.shape[1:]), values.dtype)


def _predict(state: TrackState, params: TrackParams) -> TrackState:
    """The tracks one frame later."""
    sides = longer_sides(state.box.position)[:, None]
    with_body = ~state.joint_sure | (state.num_missed > 0)[:, None]
    acceleration = jnp.where(with_body, params.box_acceleration, params.joint_acceleration)
    return state._replace(
        box=kalman.predict(state.box, (params.box_acceleration * sides) ** 2),
        joints=kalman.predict(state.joints, (acceleration * sides) ** 2),
    )


def _associate(
    tracks: TrackState, people: Detections, sigmas: Float[Any, " k"], params: TrackParams
) -> Int[Array, " t"]:
    """The person of each predicted track, -1 where there is none."""
    similar = similarity(
        tracks.joints.position,
        tracks.joints.covariance[..., 0],
        tracks.joint_sure,
        xyxy_boxes(tracks.box.position),
        people.keypoints,
        people.keypoint_scores >= params.min_joint_score,
        people.bboxes,
        sigmas,
        params.min_joints,
    )
    variance = box_variance(longer_sides(tracks.box.position), params)
    distance = box_distance(tracks.box, variance, center_and_size(people.bboxes))
    is_track, is_recent = tracks.ids > 0, tracks.num_missed == 0
    return associate(similar, distance, is_track, is_recent, people.scores, people.valid, params)


def _update(
    tracks: TrackState, people: Detections, person: Int[Array, " t"], params: TrackParams
) -> TrackState:
    """The predicted tracks after the people that they were associated with."""
    is_found = person >= 0
    joints, scores, bboxes = (values[person] for values in people[:3])
    found_box = center_and_size(bboxes)
    sides = longer_sides(found_box)[:, None]
    sure = is_found[:, None] & (scores >= params.min_joint_score)
    tracks = tracks._replace(
        box=kalman.update(tracks.box, found_box, box_variance(sides, params), is_found[:, None]),
        joints=kalman.update(tracks.joints, joints, joint_variance(scores, sides, params), sure),
        joint_sure=jnp.where(is_found[:, None], sure, tracks.joint_sure),
        num_missed=jnp.where(is_found, 0, tracks.num_missed + 1),
    )
    return _move_with_body(tracks, sure, is_found, params)


def _move_with_body(
    tracks: TrackState, sure: Bool[Array, "t k"], is_found: Bool[Array, " t"], params: TrackParams
) -> TrackState:
    """Joints and boxes that are not found move with the body, and the size of these boxes stays.

    The body moves as its sure joints do in the mean, or if they are few, as the center of the box.
    A box is a poor guide where others hide a part of the person.
    """
    velocity, variance = kalman.mean_velocity(tracks.joints, tracks.joint_sure)
    enough = tracks.joint_sure.sum(-1) >= jnp.minimum(params.min_joints, sure.shape[-1])
    velocity = jnp.where(enough[:, None], velocity, tracks.box.velocity[:, 0])
    variance = jnp.where(enough, variance, tracks.box.covariance[:, 0, 2])
    bodies = jnp.stack([velocity, jnp.zeros_like(velocity)], 1)  # of center and size
    is_lost = (tracks.num_missed == 1)[:, None]  # from the second miss on, all is as it was
    lose = jnp.where(is_found[:, None], ~sure, is_lost)
    return tracks._replace(
        box=kalman.set_velocity(tracks.box, bodies, variance[:, None], is_lost),
        joints=kalman.set_velocity(tracks.joints, velocity[:, None], variance[:, None], lose),
    )


def _end(tracks: TrackState, params: TrackParams) -> TrackState:
    """Without the tracks that were missed too often."""
    return tracks._replace(ids=jnp.where(tracks.num_missed > params.max_missed, 0, tracks.ids))
