"""Decoding of an image file to uint8 pixels of a given form, by one rule for all formats:

1. Decode the first frame and rotate it by its EXIF orientation.
2. Convert to 8 bits: one-bit images to 0 and 255, palettes to their colours, a 16-bit grey value v to the integer
   nearest to v / 257.
3. Convert to the requested channels: 1 is grey by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), 3 is RGB, 4 is RGBA.
   CMYK and other colour spaces become RGB first. If alpha is not requested, the image is composited on black.
4. Resize with Pillow's bilinear filter, which averages all source pixels of an output pixel. "stretch" ignores the
   aspect ratio, "crop" keeps it and cuts off both ends of the longer side, "pad" keeps it and adds black borders.

A PNG that needs neither step 1 nor step 2 is inflated by ISA-L (`png`) and decoded by OpenCV if that is installed: the
format is lossless, so the pixels are the same, and OpenCV is faster. Pillow does everything else.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from haversack.datasets import png
from haversack.errors import ImageInvalid, InputError

Pixels = NDArray[np.uint8]
Fit = Literal["stretch", "crop", "pad"]

RULE_VERSION = 1
"""The version of the rule above. It is part of the pixel cache's key: increment it if any decoded pixel changes."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Form:
    """The form that images are decoded to: uint8 of the shape `shape`, which is (height, width, channels).

    Attributes:
        height, width: in pixels.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        fit: how an image of another aspect ratio gets that size: "stretch" ignores the ratio, "crop" cuts off both ends
            of the longer side, "pad" adds black borders.

    Raises `InputError` for a height or width below 1, another number of channels, and an unknown `fit`.
    """

    height: int
    width: int
    channels: int
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.channels not in _MODES or self.fit not in get_args(Fit):
            raise InputError(
                f"Images cannot become {self.height} × {self.width} with {self.channels} channels, {self.fit!r}.",
                "Use size=(height, width), channels 1, 3 or 4, and fit stretch, crop or pad.",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def bytes(self) -> int:
        """The size of one decoded image in bytes."""
        return self.height * self.width * self.channels


def decode(data: bytes, form: Form, name: str) -> Pixels:
    """Decode the bytes `data` of an image file by the module's rule; return uint8 pixels of shape `form.shape`.

    Raises `ImageInvalid`, whose message calls the image `name`, if it is damaged, of a format that Pillow does not
    know, has too many pixels, or has values that are real numbers or do not fit into 16 bits.
    """
    plain = png.uncompress(data)
    pixels = None if plain is None else _decode_with_opencv(plain)
    if pixels is not None and pixels.shape == form.shape:
        return pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _to_eight_bits(_open_upright(plain or data)) if pixels is None else _to_pillow(pixels)
            image = _resize(_convert_channels(image, form.channels), form)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _invalid(name, str(error)) from error
    except Image.DecompressionBombWarning as error:
        raise _invalid(name, "its header claims too many pixels") from error
    return np.asarray(image, np.uint8).reshape(form.shape)


def preload(name: str) -> None:
    """Import OpenCV if it is installed and `name` ends in .png, so that the first `decode` does not wait for it."""
    if name.lower().endswith(".png"):
        _cv2()


def _decode_with_opencv(png_of_grey_or_rgb: bytes) -> Pixels | None:
    """Return pixels of shape (height, width, channels), or None if OpenCV is not installed or cannot decode them."""
    if (cv2 := _cv2()) is None:
        return None
    found = cv2.imdecode(np.frombuffer(png_of_grey_or_rgb, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        return None
    pixels: Pixels = found[:, :, None] if found.ndim == 2 else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
    return pixels


def _to_pillow(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


@cache
def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(0)  # the loader has one thread per core already; more would compete with them
    return cv2


def _open_upright(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image


def _to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise ValueError("its grey values do not fit into 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its values are real numbers of unknown range")
    return image


def _convert_channels(image: Image.Image, channels: int) -> Image.Image:
    """Convert an 8-bit image to `channels` by step 3 of the module's rule."""
    if image.mode == "La":
        image = image.convert("LA")
    if "transparency" in image.info and image.mode in ("L", "RGB", "1"):
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA", "PA", "RGBa") and channels != 4:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "black"), image).convert("RGB")
    if image.mode not in ("1", "L", "RGB", "RGBA", "LA"):
        image = image.convert("RGB")
    return image if image.mode == _MODES[channels] else image.convert(_MODES[channels])


def _resize(image: Image.Image, form: Form) -> Image.Image:
    size = form.width, form.height
    if image.size == size:
        return image
    if form.fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if form.fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0)
    return image.resize(size, Image.Resampling.BILINEAR)


def _invalid(name: str, reason: str) -> ImageInvalid:
    return ImageInvalid(
        f"{name} cannot be read as an image: {reason.rstrip('.')}.",
        'Repair or remove it, or skip such images with corrupt="skip".',
    )
