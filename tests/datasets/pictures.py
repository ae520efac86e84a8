"""Real images of every kind that is read, and data sets of them."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def encoded(pixels: np.ndarray[Any, Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def noise(seed: int, *shape: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def archive(path: Path, count: int = 40, side: int = 16) -> Path:
    """A zip archive of grey PNGs in the folders of two classes; the first pixel of each is its number."""
    with zipfile.ZipFile(path, "w") as out:
        for number in range(count):
            pixels = noise(number, side, side)
            pixels[0, 0] = number
            out.writestr(f"train/{('cat', 'dog')[number % 2]}/{number:03}.png", encoded(pixels))
        out.writestr("labels.csv", "file,score\n" + "".join(f"{number:03},{number / 4}\n" for number in range(count)))
        out.writestr("__MACOSX/train/cat/._000.png", b"not an image")
    return path
