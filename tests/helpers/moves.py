"""Arrays that are given other memory."""

from __future__ import annotations

import numpy as np


def other_memory(array: np.ndarray) -> None:
    """Give the array other memory, and free its old memory."""
    array.__setstate__((1, (1,), array.dtype, False, bytes(array.itemsize)))
