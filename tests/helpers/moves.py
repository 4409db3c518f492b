"""Arrays whose memory is no longer theirs."""

from __future__ import annotations

import numpy as np


def other_memory(array: np.ndarray) -> None:
    """Give the array other memory, and free what was its own."""
    array.__setstate__((1, (1,), array.dtype, False, bytes(array.itemsize)))
