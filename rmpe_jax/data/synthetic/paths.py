"""Ways of people over the ground: they cross the view, stroll and stand, leave and come back.

The ground is a plane in front of a camera at (0, 0): x to the right and z away from it, in meters.
The view is the part that the camera sees. Everybody walks from one target to the next: on to the
far side and out of the view, back to the near side and out of it, or to a place within the view to
stand there. Who has left waits and comes back. People turn at a limited rate and keep apart.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

Point = Float[np.ndarray, " 2"]

NEAR, FAR = 4.2, 8.0  # distances from the camera between which people walk, in meters
_BEYOND = 0.7  # how far outside the view people wait, in meters
_TO_FAR_SIDE, _TO_NEAR_SIDE = 0.5, 0.3  # probabilities of the next target
_ARRIVED = 0.3  # distance from the target at which it counts as reached, in meters
_REACTION = 0.35  # seconds in which a speed becomes the one that is wanted
_KEEP_APART, _PUSH = 0.8, 4.0  # meters, and m/s² at distance 0
_TURN = 270.0  # degrees per second


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where n people are in f frames.

    Attributes:
      places: (x, z) on the ground, in meters.
      speeds: in m/s.
      headings: of the bodies in degrees, 0 toward the camera, 90 to the left, as the yaw of a pose.
    """

    places: Float[np.ndarray, "f n 2"]
    speeds: Float[np.ndarray, "f n"]
    headings: Float[np.ndarray, "f n"]


@dataclasses.dataclass
class _Traveler:
    """One person on the way, at one time."""

    place: Point
    velocity: Point
    heading: float
    target: Point
    speed: float
    pause: float  # seconds to stand at the target
    is_at_target: bool = False


def sample_paths(
    rng: np.random.Generator,
    speeds: Float[np.ndarray, " n"],
    num_frames: int,
    fps: float,
    slope: float,
) -> Paths:
    """Draw the ways of n people.

    Args:
      rng: source of all randomness.
      speeds: of their normal walking, in m/s.
      num_frames: of the clip.
      fps: frames per second.
      slope: half the width of the view at the distance of a meter.
    """
    travelers = [_start(rng, speed, slope) for speed in speeds.tolist()]
    states = []
    for _ in range(num_frames):
        states.append([(*t.place, np.hypot(*t.velocity), t.heading) for t in travelers])
        pushes = _pushes(np.stack([t.place for t in travelers]))
        for traveler, push in zip(travelers, pushes, strict=True):
            _step(rng, traveler, push, 1 / fps, slope)
    values = np.array(states)
    return Paths(values[..., :2], values[..., 2], values[..., 3])


def _start(rng: np.random.Generator, speed: float, slope: float) -> _Traveler:
    """Somebody who walks already: in the view, or on the way into it."""
    distance = rng.uniform(NEAR, FAR)
    side = rng.choice([-1.0, 1.0])
    edge = slope * distance
    x = side * (edge * rng.uniform(0, 1) if rng.random() < 0.6 else edge + rng.uniform(0, 1))
    place = np.array([x, distance])
    target, pause = _next_target(rng, place, slope)
    way = target - place
    velocity = speed * way / max(float(np.hypot(*way)), 1e-6)
    return _Traveler(place, velocity, _heading(velocity), target, speed, pause)


def _next_target(rng: np.random.Generator, place: Point, slope: float) -> tuple[Point, float]:
    """Where somebody goes from a place, and for how many seconds they stay there."""
    kind = rng.random()
    distance = float(np.clip(place[1] + rng.normal(0, 0.8), NEAR, FAR))
    side = 1.0 if place[0] > 0 else -1.0
    outside = abs(place[0]) > slope * place[1] + 0.5 * _BEYOND
    if outside or kind > _TO_FAR_SIDE + _TO_NEAR_SIDE:
        target = np.array([slope * distance * rng.uniform(-0.8, 0.8), distance])
        return target, rng.uniform(0.3, 1.5) if rng.random() < 0.4 else 0.0
    side *= -1 if kind < _TO_FAR_SIDE else 1
    return np.array([side * (slope * distance + _BEYOND), distance]), rng.uniform(0.2, 1.2)


def _pushes(places: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Acceleration of everybody away from those who are too near, in m/s²."""
    away = places[:, None] - places
    distance = np.maximum(np.linalg.norm(away, axis=-1), 1e-6)
    strength = _PUSH * np.maximum(1 - distance / _KEEP_APART, 0)
    return ((strength / distance)[..., None] * away).sum(1)


def _step(
    rng: np.random.Generator, traveler: _Traveler, push: Point, seconds: float, slope: float
) -> None:
    """Move somebody for a time."""
    way = traveler.target - traveler.place
    remaining = float(np.hypot(*way))
    if remaining < _ARRIVED:
        traveler.is_at_target = True
    if traveler.is_at_target:
        traveler.pause -= seconds
        if traveler.pause <= 0:
            traveler.target, traveler.pause = _next_target(rng, traveler.place, slope)
            traveler.is_at_target = False
    wanted = np.zeros(2) if traveler.is_at_target else traveler.speed * way / max(remaining, 1e-6)
    change = (wanted - traveler.velocity) / _REACTION + push
    traveler.velocity = traveler.velocity + seconds * change
    traveler.place = traveler.place + seconds * traveler.velocity
    if np.hypot(*traveler.velocity) > 0.2:
        turn = (_heading(traveler.velocity) - traveler.heading + 180) % 360 - 180
        traveler.heading += float(np.clip(turn, -_TURN * seconds, _TURN * seconds))


def _heading(velocity: Point) -> float:
    return float(np.degrees(np.arctan2(-velocity[0], -velocity[1])))
