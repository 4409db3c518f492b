"""The data: scikit-learn's handwritten digits, 1,797 images of 8 x 8 pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from instep.commands.demo.extras import load_extra

__all__ = ["Batch", "Digits", "batches", "load_digits"]

Batch = tuple[npt.NDArray[Any], npt.NDArray[Any]]  # images (n, 64) and labels (n,)

_TEST_SHARE = 0.25
_BRIGHTEST = 16.0
_CLASSES = 10


@dataclass(frozen=True)
class Digits:
    """Images as float32 rows of 64 pixels in [0, 1] with their labels, in two parts."""

    train: Batch
    test: Batch


def load_digits(rng: np.random.Generator) -> Digits:
    """Return the digits with a quarter of each class held out."""
    images, labels = load_extra("sklearn.datasets").load_digits(return_X_y=True)
    images = (images / _BRIGHTEST).astype(np.float32)
    held_out = np.zeros(len(labels), dtype=bool)
    for digit in range(_CLASSES):
        of_class = rng.permutation(np.flatnonzero(labels == digit))
        held_out[of_class[: round(_TEST_SHARE * len(of_class))]] = True
    return Digits(
        train=(images[~held_out], labels[~held_out]), test=(images[held_out], labels[held_out])
    )


def batches(data: Batch, size: int, noise: float, rng: np.random.Generator) -> list[Batch]:
    """Return the data once, in random order, with normal noise added to the pixels.

    Noise that is new in every epoch keeps a network this large from learning the images by heart.
    """
    images, labels = data
    order = rng.permutation(len(images))
    noisy = images[order] + noise * rng.standard_normal(images.shape, dtype=np.float32)
    return [
        (noisy[start : start + size], labels[order[start : start + size]])
        for start in range(0, len(order), size)
    ]
