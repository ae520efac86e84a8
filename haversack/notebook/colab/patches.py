"""`google.colab.patches`: functions of other packages that need a window, as cell outputs."""

from __future__ import annotations

from typing import Any as _Any

__all__ = ["cv2_imshow", "cv_imshow"]


def cv2_imshow(a: _Any) -> None:
    """Show an image as `cv2.imshow` would, in the cell's output.

    `a`: array of shape (N, M) for grey, (N, M, 1), or (N, M, 3) or (N, M, 4) in BGR(A) order; values 0 to 255.
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
