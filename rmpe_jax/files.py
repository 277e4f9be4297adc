"""Files of the command line: JSON in, and results out that are whole or not there at all."""

import contextlib
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import IO, Any

from rmpe_jax.errors import UserError

_NUMBERS = itertools.count()  # of the temporary files of this process


@contextlib.contextmanager
def replacing(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write, which takes the place of `path` once the block ends without an error.

    Until then, and after an error, `path` is what it was. Missing folders are made.

    Args:
      path: of the file.
      mode: "w" for text, "wb" for bytes.

    Raises:
      UserError: the folder or the disk does not take it.
    """
    path = pathlib.Path(path)
    # Short: a name may be as long as the file system takes.
    temporary = path.with_name(f".{os.getpid()}.{next(_NUMBERS)}.tmp")
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
      kind: what the file is, such as "annotation file"; begins the line of an error.

    Raises:
      UserError: there is no such file, or it is not JSON.
    """
    try:
        return json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"no {kind} {path}: check the path") from None
    except OSError as error:
        line = f"{kind} {path} cannot be opened ({error.strerror}): check the file"
        raise UserError(line) from None
    except ValueError as error:  # also a UnicodeDecodeError
        raise UserError(f"{kind} {path} is not JSON ({error}): give a whole file") from None


def not_writable(path: str | os.PathLike, error: OSError) -> UserError:
    """What to tell whoever asked for a file that cannot be written."""
    return UserError(
        f"{path} cannot be written ({error.strerror}): make room or choose another place"
    )


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON so that `path` holds the old or the new content and never a part of it.

    Raises:
      UserError: the folder or the disk does not take it, or `content` holds NaN or infinity.
    """
    with replacing(path) as file:
        file.write(to_json(content, path))


def write_json_list(path: str | os.PathLike, items: Iterable[Any]) -> None:
    """Write a JSON list like `write_json`, a line for each item, held in memory one at a time.

    Raises:
      UserError: as in `write_json`.
    """
    with replacing(path) as file:
        separator = "[\n"
        for item in items:
            file.write(separator + to_json(item, path))
            separator = ",\n"
        file.write("[]\n" if separator == "[\n" else "\n]\n")


def to_json(content: Any, path: str | os.PathLike) -> str:
    """One line of JSON for the file at `path`.

    Raises:
      UserError: `content` holds NaN or infinity.
    """
    try:
        return json.dumps(content, allow_nan=False)
    except ValueError:
        raise UserError(f"{path} is not written: a result is not a finite number") from None
