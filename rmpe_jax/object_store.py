"""Addresses in object stores, such as gs://BUCKET/RUN: of workdirs and the networks in them."""

import os
import re

from etils import epath

from rmpe_jax.errors import UserError

_ADDRESS = re.compile(r"\w{2,}:/")  # pathlib makes gs:/ of gs://


def is_address(path: str | os.PathLike) -> bool:
    """Whether this is an address such as gs://BUCKET/RUN, and not a path or a drive's letter."""
    return bool(_ADDRESS.match(os.fspath(path)))


def open_path(path: str | os.PathLike) -> epath.Path:
    """A path, made absolute; or an address, whose store is asked once whether it answers.

    Raises:
      UserError: the store is of an unknown kind, its package is not installed, or it cannot be
        reached.
    """
    name = os.fspath(path)
    if not is_address(name):
        return epath.Path(name).absolute()
    address = name if "://" in name else name.replace(":/", "://", 1)
    try:
        found = epath.Path(address)
    except KeyError:
        line = f"{address}: there is no such kind of object store"
        raise UserError(f"{line}: use gs://BUCKET/FOLDER, or a folder") from None
    try:
        found.exists()
    except ImportError:
        raise UserError(f"{address}: run `pip install 'rmpe_jax[gcs]'` first") from None
    except Exception as error:  # stores have errors of their own
        raise UserError(f"{address}: cannot be reached ({one_line(error)})") from None
    return found


def one_line(error: Exception) -> str:
    """The first line of an error's text, at most 200 characters."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
