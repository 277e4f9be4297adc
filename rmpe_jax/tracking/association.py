"""Which person of a frame belongs to which track: three passes, each solved exactly."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from rmpe_jax.tracking.assignment import assign, is_taken
from rmpe_jax.tracking.kalman import Motion
from rmpe_jax.tracking.params import TrackParams


def associate(
    similarity: Float[Array, "t n"],
    box_distance: Float[Array, "t n"],
    is_track: Bool[Array, " t"],
    is_recent: Bool[Array, " t"],
    scores: Float[Array, " n"],
    valid: Bool[Array, " n"],
    params: TrackParams,
) -> Int[Array, " t"]:
    """The person of each track, -1 where there is none.

    The first two passes are ByteTrack's (Zhang et al., ECCV 2022): sure people to all tracks, then
    doubtful people to the tracks left that were found in the last frame. In the last pass, sure
    people who are left take up tracks that are left by the motion of the boxes alone. A pair adds
    how far its similarity is above the limit, so one good pair is worth more than two poor ones.

    Args:
      similarity: of tracks and people, 0 to 1.
      box_distance: squared Mahalanobis distance of the boxes, see `box_distance`.
      is_track: where there is a track.
      is_recent: where the track was found in the last frame.
      scores: of the people, finite.
      valid: where there is a person.
      params: thresholds.
    """
    sure = valid & (scores >= params.sure_score)
    doubtful = valid & (scores >= params.doubtful_score) & ~sure
    passes = (
        (is_track, sure, similarity - params.min_similarity),
        (is_track & is_recent, doubtful, similarity - params.min_doubtful_similarity),
        (is_track, sure, 1 - box_distance / params.motion_gate),
    )
    person = jnp.full(len(is_track), -1)
    for tracks, people, value in passes:
        tracks = tracks & (person < 0)
        people = people & ~is_taken(person, len(people))
        found = assign(jnp.where(tracks[:, None] & people, value, 0))
        person = jnp.where(found >= 0, found, person)
    return person


def box_distance(
    box: Motion, variance: Float[Array, " t"], found: Float[Array, "n 2 2"]
) -> Float[Array, "t n"]:
    """Squared Mahalanobis distance of found boxes to predicted boxes, over center and size.

    Args:
      box: center and size of the predicted boxes, (t, 2, 2).
      variance: of a found box, square pixels.
      found: center and size of the found boxes.
    """
    total = box.covariance[..., 0] + variance[:, None]
    squared = ((found - box.position[:, None]) ** 2).sum(-1)
    return (squared / total[:, None]).sum(-1)
