"""Which files are shown as images, and their thumbnails.

What a file is, its first bytes say; a name that ends in `.png` may hold anything. Formats that browsers show are sent
as they are; others that Pillow reads (TIFF, BMP …) are sent as a JPEG made here. SVG is a program as much as a picture
and is never shown. A picture is decoded only up to a number of pixels, two at a time, so that a small file that unpacks
to gigabytes does no harm; any camera's JPEG stays below it, since it is decoded smaller than it is.

Thumbnails are made anew when they are asked for: browsers keep them, and their address changes with the file.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from haversack.hub.refusal import Refusal

THUMBNAIL = 400
"""The longest side of a thumbnail in pixels: 200 on screens with two to a point."""
_LARGE = 2400
_MOST_PIXELS = 50_000_000
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_decoding = threading.Semaphore(2)


def shown_as(path: Path) -> str | None:
    """The type of a picture that browsers show as it is, from its first bytes; None for anything else."""
    with open(path, "rb") as file:
        head = file.read(32)
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image/gif"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "image/avif"
    return None


def thumbnail(path: Path) -> tuple[bytes, str]:
    """A small copy of a picture and its type. Raises `Refusal` (415) for what is none."""
    return _smaller(path, THUMBNAIL)


def large(path: Path) -> tuple[bytes, str]:
    """A copy that fills a screen, for formats that browsers do not show. Raises as `thumbnail`."""
    return _smaller(path, _LARGE)


def _smaller(path: Path, longest: int) -> tuple[bytes, str]:
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with _decoding, Image.open(path, formats=_FORMATS) as image:
            image.draft(None, (longest, longest))
            if image.width * image.height > _MOST_PIXELS:
                raise Refusal(415, "unsupportedMediaType", "The picture is too large to be shown.")
            whole = ImageOps.exif_transpose(_eight_bits(image))
            has_holes = "A" in whole.getbands() or "transparency" in whole.info
            small = whole.convert("RGBA" if has_holes else "RGB")
            small.thumbnail((longest, longest), reducing_gap=2.0)
            target = io.BytesIO()
            if has_holes:
                small.save(target, "WEBP", quality=80, method=2)
                return target.getvalue(), "image/webp"
            small.save(target, "JPEG", quality=82)
            return target.getvalue(), "image/jpeg"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refusal(415, "unsupportedMediaType", "The file is no picture that can be shown.") from error


def _eight_bits(image: Any) -> Any:
    """Sixteen-bit and floating-point pixels, as scanners and instruments write them, between their own extremes."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = image.convert("F")
    darkest, brightest = values.getextrema()
    scale = 255 / ((brightest - darkest) or 1)
    return values.point(lambda value: value * scale - darkest * scale).convert("L")
