"""A contact sheet: images side by side with a line of text under each."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from haversack.datasets.decode import Pixels

_WIDTH = 1120
_LARGEST, _SMALLEST = 224, 96
_GAP, _LINE = 12, 22
_PAPER, _INK = (250, 250, 248), (40, 40, 44)


def draw(images: Pixels, texts: Sequence[str]) -> Image.Image:
    """Return an RGB picture of `images`, uint8 of shape (count, height, width, channels), in a grid.

    Each is scaled to at most 224 pixels and stands above its text of `texts`, which is cut off to the image's width.
    """
    count, height, width, _ = images.shape
    columns = max(1, min(_columns(count), count))
    side = min(_LARGEST, max(_SMALLEST, (_WIDTH - _GAP) // columns - _GAP))
    scale = side / max(height, width)
    cell = max(1, round(width * scale)), max(1, round(height * scale))
    rows = -(-count // columns)
    page = Image.new(
        "RGB", (_GAP + columns * (cell[0] + _GAP), _GAP + rows * (cell[1] + _LINE + _GAP)), _PAPER
    )  # fmt: skip
    pen = ImageDraw.Draw(page)
    font = ImageFont.load_default(13)
    for place, (image, text) in enumerate(zip(images, texts, strict=True)):
        left = _GAP + place % columns * (cell[0] + _GAP)
        top = _GAP + place // columns * (cell[1] + _LINE + _GAP)
        page.paste(_thumbnail(image, cell), (left, top))
        pen.text((left, top + cell[1] + 4), _truncate(text, cell[0], font), _INK, font)
    return page


def _columns(count: int) -> int:
    """Return the number of columns that makes the sheet somewhat wider than high."""
    return max(1, round(math.sqrt(count * 1.6)))


def _thumbnail(image: Pixels, size: tuple[int, int]) -> Image.Image:
    picture = Image.fromarray(np.squeeze(image, 2) if image.shape[2] == 1 else image).convert("RGBA")
    small = max(size) > max(picture.size)
    picture = picture.resize(size, Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS)
    return Image.alpha_composite(Image.new("RGBA", size, _PAPER), picture).convert("RGB")


def _truncate(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the text, cut off with an ellipsis if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
