"""One image's bytes as pixels of a given shape, by one rule for every kind of image:

1. The first frame is decoded and turned upright, as its EXIF orientation says.
2. It becomes 8 bit: one-bit images 0 and 255, palettes the colours they stand for, 16-bit grey v the whole number
   nearest to v / 257.
3. It becomes the channels asked for: 1 is grey by ITU-R 601 (0.299 R + 0.587 G + 0.114 B), 3 RGB, 4 RGBA. CMYK and
   other colours become RGB first. Where alpha is not asked for, what shows through is black.
4. It becomes the size asked for, by bilinear interpolation over all pixels that fall into one (as Pillow resizes):
   "stretch" changes the shape of the picture, "crop" cuts what is too long from both sides, "pad" adds black there.

OpenCV, where it is installed, decodes PNGs that need nothing of steps 1 and 2: a lossless format has the same pixels
from either, and OpenCV takes less time. Everything else is Pillow's work.
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

from haversack.errors import ImageInvalid, InputError

Pixels = NDArray[np.uint8]
Fit = Literal["stretch", "crop", "pad"]

RULE = 1
"""Counts the versions of the rule; pixels that were kept under another are not used."""

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_PNG = b"\x89PNG\r\n\x1a\n"
_GREY_8, _RGB_8 = b"\x08\x00", b"\x08\x02"
# Nothing that trains is larger; a file that claims to be is made to fill the memory.
_LARGEST = 1 << 28


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
    plain = _plain_png(data)
    if plain is not None and plain.shape == form.shape:
        return plain
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.fromarray(plain.squeeze()) if plain is not None else _eight_bit(_opened(data))
            image = _resized(_in_channels(image, form.channels), form)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise _invalid(name, str(error)) from error
    except Image.DecompressionBombWarning as error:
        raise _invalid(name, "it claims to be too large") from error
    return np.asarray(image, np.uint8).reshape(form.shape)


def _plain_png(data: bytes) -> Pixels | None:
    """The pixels of a PNG in 8-bit grey or RGB without transparency or orientation; None for any other image."""
    if data[:8] != _PNG or data[24:26] not in (_GREY_8, _RGB_8) or (cv2 := _cv2()) is None or not _is_plain(data):
        return None
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if found is None:
        return None
    return found[:, :, None] if found.ndim == 2 else cv2.cvtColor(found, cv2.COLOR_BGR2RGB)


def _is_plain(data: bytes) -> bool:
    """Whether a PNG is whole, of a sane size, and has no chunk that changes what its pixels are."""
    if int.from_bytes(data[16:20], "big") * int.from_bytes(data[20:24], "big") > _LARGEST:
        return False
    at = 8
    while at + 12 <= len(data):
        kind = data[at + 4 : at + 8]
        if kind in (b"tRNS", b"eXIf"):
            return False
        if kind == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False  # OpenCV makes do with what there is of a file that breaks off; Pillow says so


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
