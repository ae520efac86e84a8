"""Random changes to images, each a pure function of seed, epoch and sample, so a resumed epoch sees the same ones.

They are small and few, and made of whole pixels: what turns or zooms is better done on the accelerator, by Keras's own
augmentation layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from haversack.datasets.decode import Pixels
from haversack.errors import InputError

Augment = Callable[[Pixels, np.random.Generator], Pixels]
"""Gives a changed image of the same shape; what is random in it comes from the generator alone."""


@dataclass(frozen=True)
class Augmentation:
    """Mirrored left to right with probability `flip`, moved by up to `shift` of its size (what is left free repeats the
    edge), brightness and contrast changed by factors within 1 ± `brightness` and 1 ± `contrast`.

    Raises `InputError` for numbers outside of 0 to 1.
    """

    flip: float = 0.5
    shift: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} is {value}.", "Give a number from 0 to 1.")

    def __call__(self, image: Pixels, random: np.random.Generator) -> Pixels:
        flip, down, right, brightness, contrast = random.uniform(-1, 1, 5)
        if (flip + 1) / 2 < self.flip:
            image = image[:, ::-1]
        image = _shifted(image, round(down * self.shift * image.shape[0]), round(right * self.shift * image.shape[1]))
        if self.brightness or self.contrast:
            scale = 1 + contrast * self.contrast
            offset = 127.5 * (1 - scale) + 255 * brightness * self.brightness
            image = np.clip(image * np.float32(scale) + np.float32(offset), 0, 255).astype(np.uint8)
        return image


def generator(seed: int, epoch: int, sample: int) -> np.random.Generator:
    """The source of what is random about one sample in one epoch."""
    return np.random.Generator(np.random.Philox(key=[seed % 2**64, epoch], counter=[0, 0, 1, sample]))


def _shifted(image: Pixels, down: int, right: int) -> Pixels:
    if not down and not right:
        return image
    rows = np.clip(np.arange(image.shape[0]) - down, 0, image.shape[0] - 1)
    columns = np.clip(np.arange(image.shape[1]) - right, 0, image.shape[1] - 1)
    return image[rows[:, None], columns]
