"""The tracks that begin in a frame."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from rmpe_jax.tracking import kalman
from rmpe_jax.tracking.assignment import is_taken
from rmpe_jax.tracking.detections import Detections
from rmpe_jax.tracking.noise import box_variance, joint_variance
from rmpe_jax.tracking.params import TrackParams
from rmpe_jax.tracking.state import TrackState, center_and_size, longer_sides


def start_new_tracks(
    tracks: TrackState, people: Detections, person: Int[Array, " t"], params: TrackParams
) -> tuple[TrackState, Int[Array, " t"]]:
    """Start tracks for the sure people who are left; the person of each new track, else -1.

    The surest people come first, people of one score from left to right, so the order of the people
    does not matter. If no place is free, the track that is lost for longest gives up its place.
    """
    least = jnp.maximum(params.birth_score, params.sure_score)
    starts = people.valid & ~is_taken(person, len(people.valid)) & (people.scores >= least)
    keys = people.bboxes[:, 1], people.bboxes[:, 0], -people.scores, jnp.where(starts, 0, 1)
    people_order = jnp.lexsort(keys)  # the last key counts first
    free = jnp.iinfo(jnp.int32).max
    lost_for = jnp.where(tracks.ids > 0, tracks.num_missed, free)
    places = jnp.argsort(-lost_for, stable=True)
    most = min(len(places), len(people_order))
    people_order, places = people_order[:most], places[:most]
    born = jnp.where(starts[people_order] & (lost_for[places] > 0), people_order, -1)
    num_born = (born >= 0).sum()
    new_ids = tracks.ids.at[places].set(tracks.next_id + jnp.arange(most, dtype=jnp.int32))
    born = jnp.full(len(person), -1).at[places].set(born)
    fresh = _fresh_tracks(tracks, people, born, params)._replace(ids=new_ids)
    per_track = {
        name: jax.tree.map(functools.partial(_choose, born >= 0), value, getattr(tracks, name))
        for name, value in fresh._asdict().items()
        if name not in ("next_id", "num_without_room")
    }
    state = TrackState(
        **per_track,
        next_id=tracks.next_id + num_born.astype(jnp.int32),
        num_without_room=tracks.num_without_room + (starts.sum() - num_born).astype(jnp.int32),
    )
    return state, born


def _fresh_tracks(
    tracks: TrackState, people: Detections, person: Int[Array, " t"], params: TrackParams
) -> TrackState:
    """Each track as if it began with its person, at rest; the ids are those of `tracks`."""
    joints, scores, bboxes = (values[person] for values in people[:3])
    box = center_and_size(bboxes)
    sides = longer_sides(box)[:, None]
    sure = scores >= params.min_joint_score
    # Nothing is known of the other joints, but that they are near the box.
    variance = jnp.where(sure, joint_variance(scores, sides, params), sides**2)
    joints = jnp.where((scores > 0)[..., None], joints, box[:, :1])
    velocity_variance = (params.start_velocity * sides) ** 2
    return tracks._replace(
        box=kalman.start(box, box_variance(sides, params), velocity_variance),
        joints=kalman.start(joints, variance, velocity_variance),
        joint_sure=sure,
        num_missed=jnp.zeros_like(tracks.num_missed),
    )


def _choose(condition: Bool[Array, " t"], new: Array, old: Array) -> Array:
    """The rows of `new` where the condition holds, else those of `old`."""
    return jnp.where(condition.reshape(-1, *[1] * (old.ndim - 1)), new, old)
