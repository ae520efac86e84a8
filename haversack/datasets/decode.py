"""One image's bytes as pixels of a given shape, by one rule for every kind of image:

1. The first frame is decoded and turned upright, as its EXIF orientation says.
2. It becomes 8 bit: one-bit images 0 and 255, palettes the colours they stand for, 16-bit grey v the whole number
   nearest to v / 257.
3. It becomes the channels asked for: 1 is grey by ITU-R 601 (0.299 R + 0.587 G + 0.114 B), 3 RGB, 4 RGBA. CMYK and
   other colours become RGB first. Where alpha is not asked for, what shows through is black.
4. It becomes the size asked for, by bilinear interpolation over all pixels that fall into one (as Pillow resizes):
   "stretch" changes the shape of the picture, "crop" cuts what is too long from both sides, "pad" adds black there.

PNGs that need nothing of steps 1 and 2 are inflated by ISA-L (`png`), and decoded by OpenCV where it is installed: a
lossless format has the same pixels from either, and OpenCV takes less time. Everything else is Pillow's work.
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

RULE = 1
"""Counts the versions of the rule; pixels that were kept under another are not used."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class Form:
    """What every image becomes: uint8 of shape (height, width, channels). Raises `InputError`."""

    height: int
    width: int
    channels: int
    fit: Fit = "stretch"

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1 or self.channels not in _MODES or self.fit not in get_args(Fit):
            raise InputError(
                f"Images cannot become {self.height} × {self.width} with {self.channels} channels, {self.fit!r}.",
                "Give size=(height, width), channels 1, 3 or 4, and fit stretch, crop or pad.",
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.height, self.width, self.channels

    @property
    def bytes(self) -> int:
        """Of one image."""
        return self.height * self.width * self.channels


def decode(data: bytes, form: Form, name: str) -> Pixels:
    """The pixels of the image in `data`, as `form` says. Raises `ImageInvalid`, which names it `name`."""
    plain = png.stored(data)
    pixels = None if plain is None else _by_opencv(plain)
    if pixels is not None and pixels.shape == form.shape:
        return pixels
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = _eight_bit(_opened(plain or data)) if pixels is None else _image(pixels)
            image = _resized(_in_channels(image, form.channels), form)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _invalid(name, str(error)) from error
    except Image.DecompressionBombWarning as error:
        raise _invalid(name, "it claims to be too large") from error
    return np.asarray(image, np.uint8).reshape(form.shape)


def prepare(name: str) -> None:
    """Import what decodes images such as the one called `name`, before there is one."""
    if name.lower().endswith(".png"):
        _cv2()


def _by_opencv(png_of_grey_or_rgb: bytes) -> Pixels | None:
    """Its pixels, of shape (height, width, channels); None where OpenCV is not installed."""
    if (cv2 := _cv2()) is None:
        return None
    found = cv2.imdecode(np.frombuffer(png_of_grey_or_rgb, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        return None
    return found[:, :, None] if found.ndim == 2 else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def _image(pixels: Pixels) -> Image.Image:
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


@cache
def _cv2() -> Any:
    try:
        import cv2
    except ImportError:
        return None
    cv2.setNumThreads(0)  # threads take whole batches of images; threads within one would only be in their way
    return cv2


def _opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return ImageOps.exif_transpose(image) if image.getexif().get(0x0112, 1) != 1 else image


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.int64)
        if values.min(initial=0) < 0 or values.max(initial=0) > 0xFFFF:
            raise ValueError("its grey values are not of 16 bit")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("its values are real numbers, whose range is not known")
    return image


def _in_channels(image: Image.Image, channels: int) -> Image.Image:
    """`channels` as said above; black shows through where alpha is not asked for."""
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


def _resized(image: Image.Image, form: Form) -> Image.Image:
    size = form.width, form.height
    if image.size == size:
        return image
    if form.fit == "crop":
        return ImageOps.fit(image, size, Image.Resampling.BILINEAR)
    if form.fit == "pad":
        return ImageOps.pad(image, size, Image.Resampling.BILINEAR, color=0)
    return image.resize(size, Image.Resampling.BILINEAR)


def _invalid(name: str, why: str) -> ImageInvalid:
    return ImageInvalid(
        f"{name} cannot be read as an image: {why.rstrip('.')}.",
        'Mend or remove it, or pass over such images with corrupt="skip".',
    )
