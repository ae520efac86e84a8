"""`google.colab.patches`: replacements that show an image in the cell's output instead of in a window."""

from __future__ import annotations

from typing import Any as _Any

__all__ = ["cv2_imshow", "cv_imshow"]


def cv2_imshow(a: _Any) -> None:
    """Show an image in the cell's output, with the pixels that `cv2.imshow` would show.

    `a` is an array of shape (height, width) or (height, width, 1) for grey, (height, width, 3) in BGR order, or
    (height, width, 4) in BGRA order. Values are from 0 to 255; others are clipped.
    """
    import numpy as _np
    from IPython.display import display as _display
    from PIL import Image as _Image

    pixels = _np.asarray(a).clip(0, 255).astype("uint8")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    elif pixels.ndim == 3:
        pixels = pixels[:, :, [2, 1, 0, 3][: pixels.shape[2]]]
    _display(_Image.fromarray(_np.ascontiguousarray(pixels)))


cv_imshow = cv2_imshow
