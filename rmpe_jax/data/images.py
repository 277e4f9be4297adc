"""Reads and decodes image files, with one-line errors for unreadable ones."""

import os
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from rmpe_jax.errors import UserError

# Decode 16-bit images as such: OpenCV would drop their low byte instead of rounding.
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG = b"\xff\xd8\xff"
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
_JPEG_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # baseline, progressive, ...
# Formats that OpenCV does not read.
_OTHER_FORMATS = {
    "HEIC": re.compile(rb".{4}ftyp(hei|hev|mif1|msf1)", re.DOTALL),
    "JPEG XL": re.compile(rb"\0\0\0\x0cJXL "),
    "OpenEXR": re.compile(rb"v/1\x01"),
}
# A marker is FF and a code; within a scan FF 00 is the byte FF, D0-D7 are restarts, FF FF padding.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)


class ImageError(UserError):
    """An image file cannot be read; the message is one line."""


def read_image(path: str | os.PathLike, *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Read and decode an image file; see `decode_image`."""
    return decode_image(read_encoded(path), os.fspath(path), upright=upright)


def read_encoded(path: str | os.PathLike) -> bytes:
    """The bytes of an image file.

    Raises:
      ImageError: the file is missing or cannot be opened.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        line = f"image {path} is missing: add the file or remove its entry"
        raise ImageError(line) from None
    except OSError as error:
        line = f"image {path} cannot be opened ({error.strerror}): check the file"
        raise ImageError(line) from None
    except ValueError:  # a zero byte, or half of a surrogate pair
        raise ImageError(f"image {str(path)!r} has a name that no file can have: fix it") from None


def decode_image(encoded: bytes, name: str, *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """Decode an image file (JPEG, PNG, BMP, TIFF, WebP, ...) to 8-bit RGB.

    By default the EXIF orientation is not applied. That is COCO's convention: `width`, `height` and
    coordinates refer to the stored raster, as in Pillow's `Image.open` and the COCO tools. Gray
    images get three equal channels. 16 bits are scaled to 8 (65535 to 255, rounded). An alpha
    channel is dropped without blending, as in Pillow's `convert("RGB")`.

    Args:
      encoded: the bytes of the file.
      name: of the image, for messages.
      upright: apply the EXIF orientation, as image viewers do; meant for users' own photos.

    Raises:
      ImageError: the bytes are empty, not an image, or not 8 or 16 bits deep, or a JPEG or PNG is
        truncated. (OpenCV 4 itself fills the rest of a truncated JPEG with gray.)
    """
    if not encoded:
        raise ImageError(f"image {name} is empty (0 bytes): fetch it again")
    if _is_truncated(encoded):
        raise ImageError(f"image {name} is truncated ({len(encoded)} bytes): fetch it again")
    flags = _FLAGS if upright else _FLAGS | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        for format_name, head in _OTHER_FORMATS.items():
            if head.match(encoded):
                line = f"image {name} is {format_name}, which OpenCV does not read"
                raise ImageError(f"{line}: convert it to JPEG or PNG")
        raise ImageError(f"{name} is not an image or is damaged: fetch it again")
    return to_rgb(image, name)


def to_rgb(decoded: Shaped[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "h w 3"]:
    """OpenCV's pixels (gray, BGR or BGRA, 8 or 16 bits) as 8-bit RGB, as `decode_image` says.

    Raises:
      ImageError: the pixels are not 8 or 16 bits deep.
    """
    image = _to_8_bits(decoded, name)
    if image.ndim == 2:
        return cv2.cvtColor(image, cv2.COLOR_GRAY2RGB)
    return cv2.cvtColor(image[..., :3], cv2.COLOR_BGR2RGB)


def opencv_path(path: str | os.PathLike) -> Any:
    """A path as OpenCV takes it: it crashes on text with bytes of a name that are not UTF-8."""
    return os.fsencode(path)


def image_size(encoded: bytes, name: str) -> tuple[int, int]:
    """(height, width) of an image file's raster; EXIF orientation is not applied.

    Of a JPEG or PNG only the header is read, which does not show damage to the rest of the file.

    Args:
      encoded: the bytes of the file.
      name: of the image, for messages.

    Raises:
      ImageError: as `decode_image`, for files of other formats or without such a header.
    """
    size = b""
    if encoded.startswith(_PNG):
        size = encoded[20:24] + encoded[16:20]
    elif encoded.startswith(_JPEG):
        frames = (end for code, end in _jpeg_segments(encoded) if code in _JPEG_FRAMES)
        start = next(frames, len(encoded)) + 3  # after the length of the segment and the bit depth
        size = encoded[start : start + 4]
    half = len(size) // 2
    height, width = int.from_bytes(size[:half]), int.from_bytes(size[half:])
    return (height, width) if height and width else decode_image(encoded, name).shape[:2]


def _to_8_bits(image: Shaped[np.ndarray, "..."], name: str) -> UInt8[np.ndarray, "..."]:
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        line = f"image {name} is of {image.dtype}: convert it to 8 or 16 bits per channel"
        raise ImageError(line)
    return image


def _is_truncated(encoded: bytes) -> bool:
    if encoded.startswith(_PNG):
        return _PNG_END not in encoded
    return encoded.startswith(_JPEG) and not _jpeg_is_complete(encoded)


def _jpeg_is_complete(encoded: bytes) -> bool:
    """Whether the end marker of the main image is present; embedded previews have their own."""
    in_scans = False
    for code, _ in _jpeg_segments(encoded):
        if code == _JPEG_END and in_scans:
            return True
        in_scans |= code == _JPEG_SCAN
    return False


def _jpeg_segments(encoded: bytes) -> Iterator[tuple[int, int]]:
    """Yield the code of each marker of a JPEG file and the position after it."""
    position = 2
    while marker := _JPEG_MARKER.search(encoded, position):
        yield marker[1][0], marker.end()
        # Skip the segment by its length, which follows the marker; search the scan data behind it.
        position = marker.end() + int.from_bytes(encoded[marker.end() : marker.end() + 2])
