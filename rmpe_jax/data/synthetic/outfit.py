"""Looks of people: colors of skin, hair and clothes, cuts and prints."""

import colorsys
import dataclasses

import numpy as np

from rmpe_jax.data.synthetic.painting import PATTERNS, Color, shade


@dataclasses.dataclass(frozen=True)
class Garment:
    """A color with an optional printed pattern."""

    color: Color
    pattern: str | None
    pattern_color: Color
    period: float  # of the pattern, as a fraction of the standing height


@dataclasses.dataclass(frozen=True)
class Outfit:
    """The looks of one person.

    Attributes:
      skin, hair, shoes: colors.
      hairline: cosine of the angle from the crown at which the hair ends; 1 is bald.
      long_hair: length of the hair behind the head, in head radii; 0 for short hair.
      top, bottom: clothes of the upper and lower body.
      sleeves, legs: how far limbs are covered: 0 bare, 1 to elbow or knee, 2 to wrist or ankle.
      skirt: length as a fraction of the thigh; 0 for none.
      badge: color of a mark on the chest, which distinguishes front from back.
      open_collar: whether the collar shows skin.
    """

    skin: Color
    hair: Color
    hairline: float
    long_hair: float
    top: Garment
    bottom: Garment
    sleeves: float
    legs: float
    skirt: float
    shoes: Color
    badge: Color | None
    open_collar: bool


_SKINS = (
    (255.0, 219.0, 190.0),
    (240.0, 195.0, 160.0),
    (224.0, 172.0, 130.0),
    (190.0, 135.0, 95.0),
    (140.0, 92.0, 62.0),
    (98.0, 64.0, 46.0),
)
_HAIRS = (
    (30.0, 24.0, 22.0),
    (58.0, 40.0, 30.0),
    (105.0, 70.0, 42.0),
    (170.0, 125.0, 70.0),
    (215.0, 185.0, 120.0),
    (150.0, 150.0, 150.0),
    (140.0, 55.0, 30.0),
)


def random_color(rng: np.random.Generator, saturation: tuple[float, float] = (0.1, 0.9)) -> Color:
    """Any hue, from nearly gray to vivid, from dark to bright."""
    hue, value = rng.random(), rng.uniform(0.2, 1.0)
    red, green, blue = colorsys.hsv_to_rgb(hue, rng.uniform(*saturation), value)
    return 255 * red, 255 * green, 255 * blue


def sample_outfit(rng: np.random.Generator) -> Outfit:
    """Draw the looks of one person."""
    skin = shade(_SKINS[rng.integers(len(_SKINS))], rng.uniform(0.88, 1.08))
    hair = shade(_HAIRS[rng.integers(len(_HAIRS))], rng.uniform(0.8, 1.2))
    if rng.random() < 0.12:  # a cap or a dyed head
        hair = random_color(rng, (0.5, 1.0))
    top, bottom = _sample_garment(rng), _sample_garment(rng)
    dress = rng.random() < 0.12
    return Outfit(
        skin=skin,
        hair=hair,
        hairline=1.0 if rng.random() < 0.05 else rng.uniform(0.0, 0.3),
        long_hair=rng.uniform(0.9, 2.6) if rng.random() < 0.3 else 0.0,
        top=top,
        bottom=top if dress else bottom,
        sleeves=float(rng.choice((0.0, 0.55, 0.75, 2.0), p=(0.15, 0.2, 0.25, 0.4))),
        legs=float(rng.choice((0.4, 0.8, 1.5, 2.0), p=(0.12, 0.2, 0.08, 0.6))),
        skirt=rng.uniform(0.5, 1.1) if dress or rng.random() < 0.1 else 0.0,
        shoes=random_color(rng, (0.0, 0.8)),
        badge=random_color(rng, (0.3, 1.0)) if rng.random() < 0.6 else None,
        open_collar=rng.random() < 0.6,
    )


def _sample_garment(rng: np.random.Generator) -> Garment:
    color = random_color(rng)
    contrast = rng.uniform(0.35, 0.7) if sum(color) > 330 else rng.uniform(1.5, 2.4)
    other = random_color(rng) if rng.random() < 0.5 else shade(color, contrast)
    pattern = PATTERNS[rng.integers(len(PATTERNS))] if rng.random() < 0.4 else None
    return Garment(color, pattern, other, rng.uniform(0.035, 0.09))
