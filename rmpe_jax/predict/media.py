"""What a file holds: an image, an animation, a video or something else, by its first bytes."""

import enum
import os
import pathlib
import re

import cv2

from rmpe_jax.data.images import opencv_path

# Files with these extensions are damaged, rather than something else, if their content is unknown.
_IMAGE_SUFFIXES = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".bmp", ".tif", ".tiff", ".webp", ".gif"),
    *(".avif", ".heic", ".heif", ".jp2", ".pbm", ".pgm", ".ppm", ".pnm", ".pam"),
}
_VIDEO_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp"),
    *(".mts", ".m2ts", ".ogv"),
}

_NUM_BYTES = 4096  # of a file, which the expressions below look at
_IMAGE = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|BM.{4}\0{4}"
    rb"|RIFF.{4}WEBP"
    rb"|.{4}ftyp(avi[fs]|hei|hev|mif1|msf1)"  # AVIF, HEIC
    rb"|\0\0\0\x0c(jP  |JXL )|\xffO\xffQ"  # JPEG 2000, JPEG XL
    rb"|P[1-6]\s+[#\d]|P7\n"  # PBM, PGM, PPM, PAM
    rb"|#\?RADIANCE|v/1\x01",  # HDR, OpenEXR
    re.DOTALL,
)
# Files that may hold several images; OpenCV, which is slow, counts them.
_MAYBE_ANIMATED = re.compile(
    rb"GIF8|RIFF.{4}WEBPVP8X|.{4}ftyp(avi[fs]|mif1|msf1)"
    rb"|\x89PNG(?!.*IDAT)|\x89PNG.*acTL",  # in an animation acTL is before IDAT, the pixels
    re.DOTALL,
)
# Raw photos of cameras are TIFF files too, with a small preview as first image.
_TIFF = re.compile(rb"II[*+]\0|MM\0[*+]")
_TIFF_SUFFIXES = {"", ".tif", ".tiff"}
_VIDEO = re.compile(
    rb".{4}ftyp(iso|mp4|avc1|M4V|qt  |MSNV|3g|mmp4|dash|[fF]4v)"
    rb"|RIFF.{4}AVI "
    rb"|\x1aE\xdf\xa3"  # Matroska, WebM
    rb"|FLV\x01"
    rb"|\0\0\x01[\xb3\xba]|G.{187}G.{187}G",  # MPEG
    re.DOTALL,
)
_APPLE_DOUBLE = b"\0\5\x16\7"  # notes of macOS, named like the image that they are about


class Kind(enum.Enum):
    """What a file holds."""

    IMAGE = enum.auto()
    PAGES = enum.auto()  # a TIFF of several images
    ANIMATION = enum.auto()
    VIDEO = enum.auto()
    OTHER = enum.auto()


def kind_of(path: pathlib.Path) -> Kind:
    """What a file holds, by its first bytes; by its extension if these are unknown."""
    head, suffix = _first_bytes(path), path.suffix.lower()
    if head is None or head.startswith(_APPLE_DOUBLE):
        return Kind.OTHER
    if _VIDEO.match(head):
        return Kind.VIDEO
    is_tiff = bool(_TIFF.match(head)) and suffix in _TIFF_SUFFIXES
    if _IMAGE.match(head) or is_tiff:
        is_single = not is_tiff and not _MAYBE_ANIMATED.match(head)
        if is_single or cv2.imcount(opencv_path(path)) < 2:
            return Kind.IMAGE
        return Kind.PAGES if is_tiff else Kind.ANIMATION
    if suffix in _IMAGE_SUFFIXES:
        return Kind.IMAGE
    return Kind.VIDEO if suffix in _VIDEO_SUFFIXES else Kind.OTHER


def is_image_name(name: str) -> bool:
    """Whether a file name has the extension of an image."""
    return pathlib.PurePosixPath(name).suffix.lower() in _IMAGE_SUFFIXES


def silence_opencv() -> None:
    """Keep OpenCV and FFmpeg from writing to stderr: our own errors report damaged files."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def _first_bytes(path: pathlib.Path) -> bytes | None:
    """The first bytes of a file, none if it is missing; None for folders, pipes and devices."""
    if not path.is_file():  # to open a pipe would wait for its writer
        return None if path.exists() else b""
    try:
        with open(path, "rb") as file:
            return file.read(_NUM_BYTES)
    except OSError:  # reading it reports the error
        return b""
