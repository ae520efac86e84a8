"""Which files are shown as images, and their thumbnails.

The type of a file is taken from its first bytes, not from its name. Formats that browsers show are sent unchanged;
others that Pillow reads (TIFF, BMP …) are converted to JPEG, or to WebP if they are transparent. SVG can contain
scripts and is never shown. A picture is decoded only up to 50 million pixels, and at most two at a time, so that a
small file that expands to gigabytes does no harm; large JPEGs stay below that limit because they are decoded at reduced
size.

Thumbnails are not stored: browsers cache them, and their URL changes with the file.
"""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import Any

from haversack.hub.refusal import Refusal

THUMBNAIL = 400
"""The longest side of a thumbnail in pixels: 200 CSS pixels on a high-density screen."""
_SCREEN = 2400
_MAX_PIXELS = 50_000_000
_FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_decoding = threading.Semaphore(2)


def browser_type(path: Path) -> str | None:
    """Return the MIME type of a picture that browsers show, from its first bytes; None for any other file.

    Raises `OSError` if the file cannot be read.
    """
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
    """Return a JPEG or WebP copy of a picture, at most 400 pixels a side, and the copy's MIME type.

    Raises `Refusal` (415) if the file is not a picture, or has too many pixels.
    """
    return _scaled_copy(path, THUMBNAIL)


def screen_size(path: Path) -> tuple[bytes, str]:
    """Return a JPEG or WebP copy of a picture in a format that browsers do not show, and the copy's MIME type.

    It has at most 2400 pixels a side. Raises `Refusal` (415) if the file is not a picture, or has too many pixels.
    """
    return _scaled_copy(path, _SCREEN)


def _scaled_copy(path: Path, longest: int) -> tuple[bytes, str]:
    """Return a JPEG, or a WebP if the picture is transparent, of at most `longest` pixels a side."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with _decoding, Image.open(path, formats=_FORMATS) as image:
            image.draft(None, (longest, longest))
            if image.width * image.height > _MAX_PIXELS:
                raise Refusal(415, "unsupportedMediaType", "The picture is too large to be shown.")
            whole = ImageOps.exif_transpose(_to_eight_bits(image))
            is_transparent = "A" in whole.getbands() or "transparency" in whole.info
            small = whole.convert("RGBA" if is_transparent else "RGB")
            small.thumbnail((longest, longest), reducing_gap=2.0)
            target = io.BytesIO()
            if is_transparent:
                small.save(target, "WEBP", quality=80, method=2)
                return target.getvalue(), "image/webp"
            small.save(target, "JPEG", quality=82)
            return target.getvalue(), "image/jpeg"
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Refusal(415, "unsupportedMediaType", "The file is not a picture that can be shown.") from error


def _to_eight_bits(image: Any) -> Any:
    """Scale 16-bit and floating-point pixels, as scanners and instruments write them, from their range to 8 bits."""
    if image.mode not in ("I", "F") and not image.mode.startswith("I;16"):
        return image
    values = image.convert("F")
    darkest, brightest = values.getextrema()
    scale = 255 / ((brightest - darkest) or 1)
    return values.point(lambda value: value * scale - darkest * scale).convert("L")
