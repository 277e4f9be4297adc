"""Picture files to arrays, and what is wrong with those that cannot be read."""

import os
import pathlib
import re

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from rmpe_jax.errors import UserError

# 16-bit pictures come as they are, for OpenCV would cut off their low byte instead of rounding.
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH

_PNG = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"IEND\xaeB`\x82"
_JPEG = b"\xff\xd8\xff"
_JPEG_END, _JPEG_SCAN = 0xD9, 0xDA
# A marker is FF and a code; within a scan FF 00 is the byte FF, D0-D7 are restarts, FF FF padding.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])", re.DOTALL)


class PictureError(UserError):
    """A picture file that cannot be read, said in one line."""


def read_picture(path: str | os.PathLike, *, upright: bool = False) -> UInt8[np.ndarray, "h w 3"]:
    """The picture in a file; see `decode_picture`."""
    return decode_picture(read_encoded(path), os.fspath(path), upright=upright)


def read_encoded(path: str | os.PathLike) -> bytes:
    """The bytes of a picture file.

    Raises:
      PictureError: the file is missing or cannot be opened.
    """
    try:
        return pathlib.Path(path).read_bytes()
    except FileNotFoundError:
        line = f"picture {path} is missing: put it there or remove it from what names it"
        raise PictureError(line) from None
    except OSError as error:
        line = f"picture {path} cannot be opened ({error.strerror}): check the file"
        raise PictureError(line) from None


def decode_picture(
    encoded: bytes, name: str, *, upright: bool = False
) -> UInt8[np.ndarray, "h w 3"]:
    """Decode a picture file (JPEG, PNG, BMP, TIFF, WebP) to 8-bit RGB.

    The raster is taken as it is stored: an EXIF orientation is not applied. That is COCO's
    convention: its `width`, `height` and coordinates are those of the stored raster, as Pillow's
    `Image.open` and the COCO tools show it. Gray becomes three equal channels, 16 bits are scaled
    to 8 (65535 to 255, rounded), and an alpha channel is dropped: the colours are those stored
    under it, as `convert("RGB")` of Pillow gives them.

    Args:
      encoded: the bytes of the file.
      name: of the picture, for messages.
      upright: apply the EXIF orientation all the same, as viewers do: for people's own photos.

    Raises:
      PictureError: the bytes are none, no picture, not 8 or 16 bits deep, or a JPEG or PNG that
        ends early. (OpenCV 4 itself fills the rest of a cut JPEG with gray.)
    """
    if not encoded:
        raise PictureError(f"picture {name} is empty (0 bytes): fetch it again")
    if _is_truncated(encoded):
        raise PictureError(f"picture {name} is truncated ({len(encoded)} bytes): fetch it again")
    flags = _FLAGS if upright else _FLAGS | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        image = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise PictureError(f"picture {name} is not a picture or is damaged: fetch it again")
    return cv2.cvtColor(_to_8_bits(image, name), cv2.COLOR_BGR2RGB)


def _to_8_bits(image: Shaped[np.ndarray, "h w 3"], name: str) -> UInt8[np.ndarray, "h w 3"]:
    if image.dtype == np.uint16:
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if image.dtype != np.uint8:
        line = f"picture {name} is of {image.dtype}: convert it to 8 or 16 bits per channel"
        raise PictureError(line)
    return image


def _is_truncated(encoded: bytes) -> bool:
    if encoded.startswith(_PNG):
        return _PNG_END not in encoded
    return encoded.startswith(_JPEG) and not _jpeg_is_complete(encoded)


def _jpeg_is_complete(encoded: bytes) -> bool:
    """Whether the end marker of the picture itself is there; an embedded preview has its own."""
    position = 2
    in_scans = False
    while marker := _JPEG_MARKER.search(encoded, position):
        code = marker[1][0]
        if code == _JPEG_END and in_scans:
            return True
        in_scans |= code == _JPEG_SCAN
        # The segment's length, counted from after the marker; scan data that follow are searched.
        position = marker.end() + int.from_bytes(encoded[marker.end() : marker.end() + 2])
    return False
