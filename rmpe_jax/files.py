"""Read JSON files, and write files atomically: complete or not at all."""

import contextlib
import itertools
import json
import os
import pathlib
import re
from collections.abc import Iterable, Iterator
from typing import IO, Any

from rmpe_jax.errors import UserError

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_WEB_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)

_COUNTER = itertools.count()  # numbers the temporary files of this process


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    Until then, and after an error, `path` is unchanged. Missing folders are created.

    Args:
      path: of the file.
      mode: "w" for text, "wb" for bytes.

    Raises:
      UserError: the file cannot be written.
    """
    path = pathlib.Path(path)
    # The name is short because that of `path` may have the maximum length of the file system.
    temporary = path.with_name(f".{os.getpid()}.{next(_COUNTER)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
        os.replace(temporary, path)
    except OSError as error:
        raise not_writable(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def read_json(path: str | os.PathLike, kind: str) -> Any:
    """The content of a JSON file.

    Args:
      path: of the file.
      kind: what the file is, such as "annotation file", for error messages.

    Raises:
      UserError: there is no such file, or it is not JSON.
    """
    content = b""
    try:
        content = pathlib.Path(path).read_bytes()
        return json.loads(content.decode("utf-8-sig"))  # Windows writes a byte order mark
    except FileNotFoundError:
        raise UserError(f"no {kind} {path}: check the path") from None
    except OSError as error:
        line = f"{kind} {path} cannot be opened ({error.strerror}): check the file"
        raise UserError(line) from None
    except (ValueError, RecursionError) as error:  # also a UnicodeDecodeError
        if what := failed_download(content):
            raise UserError(f"{kind} {path} is {what}") from None
        raise UserError(f"{kind} {path} is not JSON ({error}): give a complete file") from None


def failed_download(head: bytes) -> str:
    """What a failed download has left in place of a file, and what to do.

    Args:
      head: the first bytes of the file.

    Returns:
      Such as "a Git LFS pointer, …: …"; empty if it is neither such a pointer nor a web page.
    """
    if head.startswith(_LFS_POINTER):
        return "a Git LFS pointer, not the file itself: fetch the file with git lfs pull"
    if _WEB_PAGE.match(head):
        return "a web page, not the file itself: download it again, with a login if the site asks"
    return ""


def not_writable(path: str | os.PathLike, error: OSError) -> UserError:
    """The error of a file that cannot be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror}): make room or choose another place"
    )


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON atomically: `path` has the old or the new content, never a part of it.

    Raises:
      UserError: the file cannot be written, or `content` contains NaN or infinity.
    """
    with atomic_write(path) as file:
        file.write(to_json(content, path))


def write_json_list(path: str | os.PathLike, items: Iterable[Any]) -> None:
    """Write a JSON list like `write_json`, one item per line and one item in memory at a time.

    Raises:
      UserError: as in `write_json`.
    """
    with atomic_write(path) as file:
        separator = "[\n"
        for item in items:
            file.write(separator + to_json(item, path))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def to_json(content: Any, path: str | os.PathLike) -> str:
    """One line of JSON for the file at `path`.

    Raises:
      UserError: `content` contains NaN or infinity.
    """
    try:
        return json.dumps(content, allow_nan=False)
    except ValueError:
        raise UserError(f"{path} is not written: a result is not a finite number") from None
