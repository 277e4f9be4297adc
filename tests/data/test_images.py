import json
import pathlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_sets import encode, exif_orientation, raster

from rmpe_jax.data.images import ImageError, decode_image, image_size, read_encoded, read_image
from rmpe_jax.errors import UserError

IMAGE = raster(3)
JPEG_OPTIONS = {
    "baseline": (),
    "progressive": (cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": (cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "optimized": (cv2.IMWRITE_JPEG_OPTIMIZE, 1),
}


def with_segment(jpeg: bytes, segment: bytes) -> bytes:
    return jpeg[:2] + segment + jpeg[2:]


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tiff"])
def test_lossless_images_come_back_as_rgb(extension):
    np.testing.assert_array_equal(decode_image(encode(IMAGE, extension), "a"), IMAGE)


@pytest.mark.parametrize("options", JPEG_OPTIONS.values(), ids=JPEG_OPTIONS)
def test_jpeg_is_close(options):
    decoded = decode_image(encode(IMAGE, ".jpg", *options), "a")
    assert decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - IMAGE).mean() < 3


@pytest.mark.parametrize("extension", [".png", ".tiff"])
def test_gray_becomes_three_equal_channels(extension):
    gray = IMAGE[..., 0]
    decoded = decode_image(encode(gray, extension), "a")
    np.testing.assert_array_equal(decoded, np.repeat(gray[..., None], 3, -1))


def test_alpha_is_dropped_and_the_colors_under_it_stay():
    alpha = np.zeros_like(IMAGE[..., :1])
    alpha[10:] = 128
    decoded = decode_image(encode(np.concatenate([IMAGE, alpha], -1)), "a")
    np.testing.assert_array_equal(decoded, IMAGE)


@pytest.mark.parametrize("extension", [".png", ".tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bits_are_scaled_and_rounded(extension, channels):
    deep = np.random.default_rng(0).integers(0, 65536, (9, 11, channels), np.uint16)
    deep[0, 0], deep[0, 1] = 65535, 128  # the latter is nearer to 0 than to 257
    expected = np.round(deep[..., :3] / 65535 * 255).astype(np.uint8)
    decoded = decode_image(encode(deep.squeeze(-1) if channels == 1 else deep, extension), "a")
    np.testing.assert_array_equal(decoded, np.broadcast_to(expected, (9, 11, 3)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_not_applied(orientation):
    plain = encode(IMAGE, ".jpg")
    turned = with_segment(plain, exif_orientation(orientation))
    np.testing.assert_array_equal(decode_image(turned, "a"), decode_image(plain, "a"))
    # OpenCV by itself obeys the segment, so it is a valid one.
    shown = cv2.imdecode(np.frombuffer(turned, np.uint8), cv2.IMREAD_COLOR)
    assert shown.shape[:2] == (IMAGE.shape[1::-1] if orientation > 4 else IMAGE.shape[:2])
    np.testing.assert_array_equal(decode_image(turned, "a", upright=True), shown[..., ::-1])


@pytest.mark.parametrize("options", JPEG_OPTIONS.values(), ids=JPEG_OPTIONS)
def test_the_size_of_a_jpeg_is_that_of_its_raster(options):
    """A preview has a header of its own, and the orientation is not applied."""
    preview = encode(raster(0, (12, 16)), ".jpg")
    encoded = with_segment(encode(IMAGE, ".jpg", *options), exif_orientation(6, preview))
    assert image_size(encoded, "a") == decode_image(encoded, "a").shape[:2] == IMAGE.shape[:2]
    assert image_size(encoded[:-9], "a") == IMAGE.shape[:2]


@pytest.mark.parametrize("extension", [".png", ".bmp", ".tiff", ".webp"])
def test_the_size_of_other_images(extension):
    assert image_size(encode(IMAGE, extension), "a") == IMAGE.shape[:2]


@pytest.mark.parametrize("encoded", [b"", b"GIF", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"])
def test_an_image_without_a_size_is_an_error(encoded):
    with pytest.raises(ImageError, match="fetch it again"):
        image_size(encoded, "a")


@settings(deadline=None, max_examples=60)
@given(st.data())
@pytest.mark.parametrize("kind", [*JPEG_OPTIONS, "png", "with_preview"])
def test_a_truncated_image_is_an_error(kind, data):
    encoded = encode(IMAGE, ".jpg", *JPEG_OPTIONS.get(kind, ()))
    if kind == "png":
        encoded = encode(IMAGE, ".png")
    if kind == "with_preview":  # a small image inside, with an end marker of its own
        encoded = with_segment(encoded, exif_orientation(1, encode(IMAGE[::4, ::4], ".jpg")))
    assert decode_image(encoded, "a.jpg").shape == IMAGE.shape
    length = data.draw(st.integers(8, len(encoded) - 1))
    with pytest.raises(ImageError, match=r"^image a\.jpg is truncated \(\d+ bytes\): fetch it"):
        decode_image(encoded[:length], "a.jpg")


def test_bytes_after_the_end_of_an_image_do_no_harm():
    for extension in (".jpg", ".png"):
        encoded = encode(IMAGE, extension)
        decoded = decode_image(encoded + b"\0" * 100 + b"more", "a")
        np.testing.assert_array_equal(decoded, decode_image(encoded, "a"))


@pytest.mark.parametrize(
    ("encoded", "line"),
    [
        (b"", "image a.jpg is empty (0 bytes): fetch it again"),
        (b"<html>404</html>", "a.jpg is not an image or is damaged: fetch it again"),
        (encode(IMAGE, ".bmp")[:900], "a.jpg is not an image or is damaged: fetch it"),
        (encode(IMAGE, ".webp")[:90], "a.jpg is not an image or is damaged: fetch it"),
        (
            b"\0\0\0\x18ftypheic" + bytes(99),
            "image a.jpg is HEIC, which OpenCV does not read: convert it to JPEG or PNG",
        ),
        (
            encode(IMAGE.astype(np.float32), ".tiff"),
            "image a.jpg is of float32: convert it to 8 or 16 bits per channel",
        ),
    ],
    ids=["empty", "html", "bmp", "webp", "heic", "float"],
)
def test_what_is_no_image_is_one_clear_line(encoded, line):
    with pytest.raises(ImageError) as error:
        decode_image(encoded, "a.jpg")
    assert str(error.value).startswith(line)


def test_damage_within_a_png_is_an_error():
    encoded = bytearray(encode(IMAGE))
    encoded[len(encoded) // 2] ^= 0xFF
    with pytest.raises(ImageError, match="damaged"):
        decode_image(bytes(encoded), "a.png")


def test_a_missing_file_is_one_clear_line(tmp_path):
    path = tmp_path / "gone.jpg"
    with pytest.raises(UserError) as error:
        read_image(path)
    line = f"image {path} is missing: add the file or remove its entry"
    assert str(error.value) == line


def test_a_folder_in_place_of_a_file_is_one_clear_line(tmp_path):
    with pytest.raises(ImageError, match=r"cannot be opened \(Is a directory\): check the file$"):
        read_encoded(tmp_path)


@pytest.mark.parametrize("name", ["a\0.jpg", "\ud800.jpg"])
def test_a_name_that_no_file_can_have_is_one_clear_line(tmp_path, name):
    with pytest.raises(ImageError, match=r"has a name that no file can have: fix it$") as error:
        read_encoded(tmp_path / name)
    assert str(error.value).isprintable()


def test_a_file_is_read(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(IMAGE))
    np.testing.assert_array_equal(read_image(path), IMAGE)
    np.testing.assert_array_equal(read_image(str(path)), IMAGE)


@pytest.mark.parametrize("split", ["train2017", "val2017"])
def test_real_images_have_the_size_that_coco_says(shared_data: pathlib.Path, split):
    annotations = shared_data / "coco" / "annotations" / f"person_keypoints_{split}.json"
    for image in json.loads(annotations.read_text())["images"]:
        pixels = read_image(shared_data / "coco" / split / image["file_name"])
        assert pixels.shape == (image["height"], image["width"], 3)
