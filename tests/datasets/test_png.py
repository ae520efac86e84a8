"""PNGs with their pixels stored: the same image to whoever decodes it, and never a damaged one."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from haversack.datasets import png
from tests.datasets.pictures import encoded, noise

GREY = noise(2, 30, 20)


def smooth(height: int, width: int) -> np.ndarray[Any, Any]:
    """An image of which every kind of filter makes something, and of whose deflating something is left."""
    down, right = np.mgrid[:height, :width]
    return ((np.sin(down / 7) + np.cos(right / 5) + 2) * 63).astype(np.uint8)


def opened(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 1), (224, 224), (300, 400)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_the_same(shape: tuple[int, int], channels: int) -> None:
    pixels = smooth(*shape) if channels == 1 else np.dstack([smooth(*shape), noise(1, *shape), smooth(*shape)])
    data = encoded(pixels)
    stored = png.uncompress(data)
    assert stored is not None
    assert (opened(stored) == pixels).all()
    assert len(stored) > pixels.nbytes


def test_pixels_in_several_chunks_among_others_are_read() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("comment", "x" * 1000)
    data = encoded(noise(3, 400, 400), pnginfo=text, dpi=(72, 72))
    assert data.count(b"IDAT") > 1
    assert (opened(png.uncompress(data)) == noise(3, 400, 400)).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        encoded(GREY, "BMP"),
        encoded(GREY > 127),
        encoded(Image.fromarray(noise(1, 8, 8, 3)).quantize(16)),
        encoded(noise(1, 8, 8, 4)),
        encoded(noise(1, 8, 8).astype(np.uint16)),
        encoded(GREY, transparency=7),
    ],
    ids=["empty", "text", "bmp", "one bit", "palette", "rgba", "sixteen bits", "transparent"],
)
def test_other_images_are_left_alone(data: bytes) -> None:
    assert png.uncompress(data) is None


def test_a_changed_byte_is_never_passed_on() -> None:
    data = encoded(GREY)
    for place in range(len(data)):
        changed = bytearray(data)
        changed[place] ^= 0x10
        stored = png.uncompress(bytes(changed))
        assert stored is None or _is_refused(stored) or (opened(stored) == GREY).all()


def _is_refused(data: bytes) -> bool:
    try:
        opened(data)
    except (OSError, SyntaxError):
        return True
    return False


@pytest.mark.parametrize("end", [10, 40, -30, -5])
def test_what_breaks_off_is_left_alone(end: int) -> None:
    assert png.uncompress(encoded(GREY)[:end]) is None


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def made(width: int, height: int, rows: bytes, interlaced: int = 0) -> bytes:
    header = struct.pack(">LLBBBBB", width, height, 8, 0, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("rows", [b"", bytes(17), bytes(19), bytes(10_000_000)])
def test_rows_of_another_size_are_left_alone(rows: bytes) -> None:
    assert png.uncompress(made(8, 2, bytes(18))) is not None
    assert png.uncompress(made(8, 2, rows)) is None


def test_interlaced_images_are_left_alone() -> None:
    assert png.uncompress(made(8, 2, bytes(18), interlaced=1)) is None


def test_sizes_that_would_fill_the_memory_are_left_alone() -> None:
    assert png.uncompress(made(60_000, 60_000, b"")) is None
