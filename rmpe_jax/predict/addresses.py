"""Images of object stores: found, read and written by the file systems of Apache Beam.

An address has a scheme, such as `gs://BUCKET/FOLDER`. Paths of files are read and written too.
"""

import itertools
import os
import pathlib
import posixpath
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from rmpe_jax.beam import import_beam
from rmpe_jax.data.images import ImageError
from rmpe_jax.errors import UserError
from rmpe_jax.object_store import is_address, one_line
from rmpe_jax.predict.inputs import ImageInput, find_files
from rmpe_jax.predict.media import is_image_name


class FoundImages(NamedTuple):
    """The images that arguments name.

    Attributes:
      images: names and paths or addresses; the names are unique.
      passed_over: files in folders that are not images.
    """

    images: list[tuple[str, str]]
    passed_over: list[pathlib.Path]


def find_images(arguments: Sequence[str], out: str) -> FoundImages:
    """The images that arguments name, as `find_files` does; or those of an object store.

    An address is a folder, an image, or a list of addresses (.txt). In folders of object stores,
    images are told by their extensions. Lists that are files may have addresses too.

    Args:
      arguments: paths or addresses.
      out: folder or address of the results.

    Raises:
      UserError: there is no such image, an input is a video, or arguments have both paths and
        addresses.
    """
    parts = [_addresses(argument) for argument in arguments]
    if all(part is None for part in parts):
        return _files(arguments, None if is_address(out) else pathlib.Path(out))
    if None in parts:
        line = "inputs are files and addresses: give one kind, or a list of addresses for all"
        raise UserError(line)
    return _named([part for part in parts if part is not None])


def join(folder: str, name: str) -> str:
    """The path or address of a file in a folder."""
    return f"{folder.rstrip('/')}/{name}" if is_address(folder) else os.path.join(folder, name)


def match(pattern: str) -> list[str]:
    """The files that a pattern matches; `**` also matches folders.

    Raises:
      UserError: the object store cannot be used.
    """
    try:
        (found,) = _file_systems().match([pattern])
    except Exception as error:  # of any kind: object stores have their own
        raise UserError(f"{pattern}: {one_line(error)}; check the address") from error
    return [metadata.path for metadata in found.metadata_list]


def read_address(address: str) -> bytes:
    """The content of a file.

    Raises:
      ImageError: it cannot be read.
    """
    try:
        with _file_systems().open(address, compression_type="uncompressed") as file:
            return file.read()
    except Exception as error:
        line = f"image {address} cannot be opened ({one_line(error)}): check the address"
        raise ImageError(line) from None


def write_lines(path: str, lines: Iterable[str]) -> None:
    """Write a text file.

    Raises:
      UserError: it cannot be written.
    """
    try:
        with _file_systems().create(path) as file:
            for line in lines:
                file.write(line.encode() + b"\n")
    except Exception as error:
        line = f"{path} cannot be written ({one_line(error)}): check the address"
        raise UserError(line) from error


def delete(pattern: str) -> None:
    """Delete the files that a pattern matches."""
    if found := match(pattern):
        _file_systems().delete(found)


def _files(arguments: Sequence[str], output_folder: pathlib.Path | None) -> FoundImages:
    found = find_files(arguments, output_folder)
    images = [item for item in found.inputs if isinstance(item, ImageInput)]
    for item in found.inputs:
        if not isinstance(item, ImageInput):
            raise UserError(
                f"{item.name} is a video or a webcam: --beam-options is for images; leave it "
                "out, or run without --beam-options"
            )
    return FoundImages([(i.name, os.path.abspath(i.path)) for i in images], found.passed_over)


def _addresses(argument: str) -> tuple[str, list[str]] | None:
    """The folder and the images of an address, or of a list of addresses; None for a path."""
    is_list = argument.lower().endswith(".txt")
    if not is_address(argument):
        path = pathlib.Path(argument)
        if not is_list or not path.is_file():
            return None
        addresses = _lines(path.read_bytes())
        return ("", addresses) if any(map(is_address, addresses)) else None
    if is_list:
        addresses = _lines(read_address(argument))
    else:  # some object stores also say of a folder that it exists, so the files in it come first
        folder = argument.rstrip("/") + "/"
        if addresses := sorted(filter(is_image_name, match(folder + "**"))):
            return folder, addresses
        addresses = match(argument)
    if not addresses:
        raise UserError(f"{argument}: no images there; check the address")
    return "", addresses


def _lines(content: bytes) -> list[str]:
    """The lines of a list, without those that are empty."""
    lines = content.decode("utf-8-sig", errors="replace").split("\n")
    return [line.strip() for line in lines if line.strip()]


def _named(parts: Sequence[tuple[str, list[str]]]) -> FoundImages:
    """The images with names as `find_files` gives them."""
    names = {
        address: address.removeprefix(folder) if folder else posixpath.basename(address)
        for folder, addresses in parts
        for address in addresses
    }
    if len(set(names.values())) < len(names):
        levels = zip(*(address.split("/")[:-1] for address in names), strict=False)
        depth = sum(1 for _ in itertools.takewhile(lambda level: len(set(level)) == 1, levels))
        names = {address: "/".join(address.split("/")[depth:]) for address in names}
    return FoundImages([(name, address) for address, name in names.items()], [])


def _file_systems() -> Any:
    return import_beam("apache_beam.io.filesystems").FileSystems
