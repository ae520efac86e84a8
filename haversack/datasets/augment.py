"""Random augmentation of images: a pure function of seed, epoch and sample, so a resumed epoch repeats it exactly.

Only flips, shifts by whole pixels, brightness and contrast are offered. Rotation and zoom are faster on the
accelerator, with Keras's augmentation layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from haversack.datasets.decode import Pixels
from haversack.errors import InputError

Augment = Callable[[Pixels, np.random.Generator], Pixels]
"""Maps a uint8 image of shape (height, width, channels) to one of the same shape; all randomness is the generator's."""


@dataclass(frozen=True)
class Augmentation:
    """A random flip, shift, and change of brightness and contrast of an image.

    Call it with a uint8 image of shape (height, width, channels) and a numpy `Generator`; it returns the changed image,
    of the same shape and type. `flip=0` and zeros change nothing.

    Args:
        flip: the probability of a left-right flip.
        shift: the largest shift in each direction, as a fraction of height and width; the uncovered border repeats the
            edge pixels.
        brightness: the largest amount that is added to or subtracted from all values, as a fraction of 255.
        contrast: the differences of all values from 127.5 are multiplied by a factor between 1 - `contrast` and
            1 + `contrast`.

    Raises `InputError` for a value outside of 0 to 1.
    """

    flip: float = 0.5
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}, not between 0 and 1.", "Choose a number from 0 to 1.")

    def __call__(self, image: Pixels, random: np.random.Generator) -> Pixels:
        """Return the changed image, uint8 of the same shape (height, width, channels)."""
        flip, down, right, brightness, contrast = random.uniform(-1, 1, 5)
        if (flip + 1) / 2 < self.flip:
            image = image[:, ::-1]
        image = _shift(image, round(down * self.shift * image.shape[0]), round(right * self.shift * image.shape[1]))
        if self.brightness or self.contrast:
            scale = 1 + contrast * self.contrast
            offset = 127.5 * (1 - scale) + 255 * brightness * self.brightness
            image = np.clip(image * np.float32(scale) + np.float32(offset), 0, 255).astype(np.uint8)
        return image


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """Return the random generator for the augmentation of one sample in one epoch, both numbered from 0.

    Equal arguments give generators of equal random numbers.
    """
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, epoch], counter=[0, 0, 1, sample]))


def _shift(image: Pixels, down: int, right: int) -> Pixels:
    if not down and not right:
        return image
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows[:, None], columns]
