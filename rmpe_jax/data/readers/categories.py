"""The `categories` of a file in COCO's format: which one is the person, and the order of joints."""

import logging
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Int

from rmpe_jax.data.readers.annotations import field, identifier
from rmpe_jax.errors import UserError
from rmpe_jax.skeletons.skeleton import UNNAMED_PREFIX, Skeleton

PERSON = 1  # COCO's id of the category person

# CrowdPose's and PoseTrack's names of joints, as they are spelled here.
_OTHER_NAMES = {"head": "headtop", "neck": "upperneck", "headbottom": "upperneck"}
_SHOWN = 5  # categories or joints that a message names


def read_categories(document: dict, where: str) -> dict[int, dict]:
    """The entries of `categories` by id; none if the file has no such list.

    Args:
      document: the content of the file.
      where: name of the file, for messages.

    Raises:
      UserError: it is not a list of objects with an `id`.
    """
    if document.get("categories") is None:
        return {}
    entries = field(document, "categories", where, list)
    places = range(len(entries))
    ids = [identifier(entries[i], "id", f"{where}: category number {i}") for i in places]
    return dict(zip(ids, entries, strict=True))


def person_category(categories: Mapping[int, dict], where: str) -> int:
    """The id of the category that is named person; 1, COCO's id, if none is.

    Another id than 1 is logged.

    Args:
      categories: from `read_categories`.
      where: name of the file, for the log.
    """
    named = [i for i, entry in categories.items() if _name(entry).lower() == "person"]
    if not named or PERSON in named:
        return PERSON
    line = "%s: category %d is named person: its annotations are the people"
    logging.getLogger(__name__).warning(line, where, named[0])
    return named[0]


def category_of(entry: Any, where: str, default: int) -> int:
    """The `category_id` of an annotation.

    Args:
      entry: the annotation.
      where: its name, for messages.
      default: the category of annotations without `category_id`.

    Raises:
      UserError: the annotation is not an object, or its category is not a whole number.
    """
    if isinstance(entry, dict) and entry.get("category_id") is None:
        return default
    return identifier(entry, "category_id", where)


def describe(counts: Mapping[int, int], categories: Mapping[int, dict]) -> str:
    """Such as `12 of category 18 (dog), 5 of category 3`.

    Args:
      counts: number of annotations of each category.
      categories: from `read_categories`.
    """
    names = {i: _name(categories.get(i, {})) for i in counts}
    parts = [
        f"{count} of category {i}" + (f" ({names[i]})" if names[i] else "")
        for i, count in sorted(counts.items(), key=lambda item: -item[1])
    ]
    return ", ".join(parts[:_SHOWN]) + (", ..." if len(parts) > _SHOWN else "")


def joint_order(category: dict, skeleton: Skeleton, where: str) -> Int[np.ndarray, " k"]:
    """For each joint of the skeleton its place in the file, by the names in the category.

    Case, spaces, hyphens and underscores of names do not matter. The order is the skeleton's if the
    category does not name its joints, and for whole bodies, whose joints are in several fields.
    Names that are only numbers say nothing: the order is the skeleton's too, and this is logged, as
    another order is.

    Args:
      category: the person's entry of `categories`.
      skeleton: the joints to read.
      where: name of the file, for messages.

    Raises:
      UserError: the names are not those of the skeleton.
    """
    names = category.get("keypoints")
    as_in_skeleton = np.arange(skeleton.num_keypoints)
    unnamed = not skeleton.joints or skeleton.name.startswith(UNNAMED_PREFIX)
    if not names or unnamed or skeleton.part_sizes:
        return as_in_skeleton
    names = [str(name) for name in names] if isinstance(names, list) else [str(names)]
    given, needed = [_plain(name) for name in names], [_plain(name) for name in skeleton.joints]
    if given == needed:
        return as_in_skeleton
    log = logging.getLogger(__name__)
    if sorted(given) == sorted(needed):
        line = "%s: joints are in another order (%s): they are reordered by their names"
        log.warning(line, where, _few(names))
        return np.array([given.index(joint) for joint in needed])
    if len(given) == len(needed) and all(re.fullmatch(r"\D*\d+", name) for name in given):
        line = "%s: joints have no names but numbers (%s): they are read in the order %s"
        log.warning(line, where, _few(names), _few(skeleton.joints))
        return as_in_skeleton
    raise UserError(
        f"{where}: category {category['id']} names {len(names)} joints ({_few(names)}), not the "
        f"{len(needed)} of {skeleton.name} ({', '.join(skeleton.joints)}): rename them, or use "
        "another dataset"
    )


def _name(category: dict) -> str:
    return str(category.get("name") or "").strip()


def _plain(name: str) -> str:
    letters = re.sub(r"[\s_-]", "", name.lower())
    return _OTHER_NAMES.get(letters, letters)


def _few(names: list[str] | tuple[str, ...]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
