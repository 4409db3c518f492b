"""The two curves that several schedules share."""

import math
import sys

LARGEST = sys.float_info.max


def half_cosine(angle: float) -> float:
    """Return (1 + cos(angle)) / 2, which falls from 1 at angle 0 to 0 at pi."""
    return (1.0 + math.cos(angle)) / 2.0


def geometric(init: float, ratio: float, n: float) -> float:
    """Return init * ratio**n for ratio > 0, limited in magnitude to the largest float64."""
    try:
        value: float = init * ratio**n
    except OverflowError:
        value = init * math.inf if init else 0.0
    return math.copysign(LARGEST, value) if math.isinf(value) else value
