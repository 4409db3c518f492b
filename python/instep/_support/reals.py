"""Which values count as real numbers or whole numbers: fewer than ``float`` and ``int`` accept."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np

__all__ = ["is_fixed", "is_real", "whole"]

# Kinds of NumPy's dtypes: bool, complex, text, bytes, times, objects.
_NO_REALS = frozenset("bcUSmMO")


def is_real(value: object) -> bool:
    """Tell whether a value is one real number, and not True, text, a time or an array of several numbers."""
    return (
        not isinstance(value, (bool, str, bytes, complex))
        and hasattr(value, "__float__")
        and getattr(value, "ndim", 0) == 0
        and getattr(getattr(value, "dtype", None), "kind", "f") not in _NO_REALS
    )


def is_fixed(value: object) -> bool:
    """Tell whether a value is surely the same number as long as it is the same object; arrays are not."""
    return value is None or isinstance(value, (float, int, np.generic))


def whole(value: Any) -> int | None:
    """Return an int's value; None for True, 1.0, a timedelta and everything else that is no int."""
    if hasattr(value, "__float__") and not is_real(value):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
