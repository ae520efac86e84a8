from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from haversack.datasets.decode import Form, decode
from haversack.errors import ImageInvalid, InputError
from tests.datasets.pictures import encoded, noise

RGB = noise(1, 8, 6, 3)
GREY = noise(2, 8, 6)
# How a camera that was held so stores what is upright (EXIF 2.32, tag 0x0112).
STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def as_grey(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_grey_image_is_what_was_written(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    found = decode(encoded(GREY, kind, **options), Form(8, 6, 1), "x")
    assert (found[:, :, 0] == GREY).all()


def test_rgb_image_is_what_was_written() -> None:
    assert (decode(encoded(RGB), Form(8, 6, 3), "x") == RGB).all()


def test_rgb_becomes_grey_by_itu_601() -> None:
    found = decode(encoded(RGB), Form(8, 6, 1), "x").astype(float)
    assert abs(found[:, :, 0] - RGB @ [0.299, 0.587, 0.114]).max() <= 0.5001


def test_grey_becomes_three_equal_channels() -> None:
    assert (decode(encoded(GREY), Form(8, 6, 3), "x") == GREY[:, :, None]).all()


def test_one_bit_becomes_black_and_white() -> None:
    bits = GREY > 127
    assert (decode(encoded(bits), Form(8, 6, 1), "x")[:, :, 0] == bits * 255).all()


def test_palette_becomes_its_colours() -> None:
    image = Image.fromarray(RGB).quantize(16)
    assert (decode(encoded(image), Form(8, 6, 3), "x") == np.asarray(image.convert("RGB"))).all()


def test_transparent_palette_shows_black() -> None:
    image = Image.new("P", (6, 8), 1)
    image.putpalette([9, 9, 9, 200, 100, 50])
    found = decode(encoded(image, transparency=1), Form(8, 6, 3), "x")
    assert not found.any()


def test_sixteen_bits_become_eight() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65535]], np.uint16)
    assert decode(encoded(values), Form(1, 6, 1), "x").ravel().tolist() == [0, 0, 1, 1, 128, 255]


def test_alpha_is_laid_over_black_or_kept() -> None:
    pixels = np.array([[[200, 100, 50, 255], [200, 100, 50, 0]]], np.uint8)
    assert decode(encoded(pixels), Form(1, 2, 3), "x").tolist() == [[[200, 100, 50], [0, 0, 0]]]
    assert (decode(encoded(pixels), Form(1, 2, 4), "x") == pixels).all()


def test_transparent_colour_of_an_rgb_png_shows_black() -> None:
    pixels = np.array([[[200, 100, 50], [1, 2, 3]]], np.uint8)
    found = decode(encoded(pixels, transparency=(200, 100, 50)), Form(1, 2, 3), "x")
    assert found.tolist() == [[[0, 0, 0], [1, 2, 3]]]


def test_cmyk_becomes_rgb() -> None:
    image = Image.new("CMYK", (6, 8), (0, 255, 255, 0))
    found = decode(encoded(image, "JPEG", quality=95), Form(8, 6, 3), "x")
    assert abs(found.astype(int) - [255, 0, 0]).max() < 6


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_image_is_turned_upright(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = np.kron(np.array([[0, 80, 160], [240, 40, 120]], np.uint8), np.ones((16, 16), np.uint8))
    image = Image.fromarray(upright)
    stored = image if orientation == 1 else image.transpose(STORED[orientation])
    found = decode(encoded(stored, kind, exif=exif), Form(*upright.shape, 1), "x")
    assert abs(found[8::16, 8::16, 0].astype(int) - upright[8::16, 8::16]).max() < 12


def test_stretching_takes_all_of_the_image() -> None:
    found = decode(encoded(RGB), Form(4, 4, 3), "x")
    assert (found == np.asarray(Image.fromarray(RGB).resize((4, 4), Image.Resampling.BILINEAR))).all()


def test_cropping_takes_the_middle() -> None:
    wide = np.zeros((4, 12), np.uint8)
    wide[:, 4:8] = 255
    assert (decode(encoded(wide), Form(4, 4, 1, "crop"), "x") == 255).all()


def test_padding_adds_black() -> None:
    found = decode(encoded(np.full((4, 8), 255, np.uint8)), Form(8, 8, 1, "pad"), "x")[:, :, 0]
    assert found[2:6].min() == 255
    assert not found[:2].any()
    assert not found[6:].any()


def test_images_a_pixel_high_are_resized() -> None:
    assert (decode(encoded(np.full((1, 6), 9, np.uint8)), Form(4, 4, 1), "x") == 9).all()


@pytest.mark.parametrize("pixels", [GREY, RGB], ids=["grey", "rgb"])
def test_opencv_and_pillow_give_the_same(pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    form = Form(5, 7, 3)
    by_opencv = decode(encoded(pixels), form, "x")
    monkeypatch.setattr("haversack.datasets.decode._cv2", lambda: None)
    assert (decode(encoded(pixels), form, "x") == by_opencv).all()


@pytest.mark.parametrize(
    "data",
    [b"", b"hello", encoded(RGB)[:-30], encoded(noise(3, 64, 64, 3), "JPEG")[:500], encoded(GREY)[:40] + b"?" * 50],
    ids=["empty", "text", "png", "jpeg", "changed"],
)
def test_what_is_no_whole_image_is_an_error_with_its_name(data: bytes) -> None:
    with pytest.raises(ImageInvalid, match=r"cats/1\.png cannot be read"):
        decode(data, Form(8, 6, 3), "cats/1.png")


def test_real_numbers_are_refused() -> None:
    with pytest.raises(ImageInvalid, match="real numbers"):
        decode(encoded(GREY.astype(np.float32), "TIFF"), Form(8, 6, 1), "x")


def test_image_that_claims_to_be_huge_is_refused() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">LLBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(ImageInvalid):
        decode(data, Form(8, 8, 1), "x")


@pytest.mark.parametrize("form", [(0, 8, 1), (8, 8, 2), (8, 8, 3, "squeeze")])
def test_forms_that_are_none_are_refused(form: tuple) -> None:
    with pytest.raises(InputError, match="channels 1, 3 or 4"):
        Form(*form)
