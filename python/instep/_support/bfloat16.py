"""The dtype bfloat16 of the package ml_dtypes, which is an extra."""

from __future__ import annotations

from typing import Any

import numpy as np

from instep._support.wording import missing

__all__ = ["bfloat16"]


def bfloat16(who: str) -> np.dtype[Any]:
    """Return the dtype; from now on NumPy knows its name. ImportError says who needs it."""
    try:
        import ml_dtypes  # noqa: PLC0415
    except ImportError:
        raise ImportError(missing(who, "ml_dtypes", "bfloat16")) from None
    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
