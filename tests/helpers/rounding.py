"""Formats narrower than the arithmetic: to nearest, by random bits, and bfloat16 with the bits that it lacks."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MAGNITUDE, SIGN = np.uint32(0x7FFFFFFF), np.uint32(0x80000000)
INFINITY, NAN = np.uint32(0x7F800000), np.uint16(0x7FC0)


def compute_type(dtype: Any) -> type[np.floating]:
    return np.float64 if np.dtype(dtype) == np.float64 else np.float32


def load(x: Any, T: type[np.floating]) -> np.ndarray:
    """`x` in T: exact for the narrower formats; float64 to float32 rounds once."""
    return np.asarray(x).astype(T)


@np.errstate(all="ignore")
def store(x: Any, dtype: Any) -> np.ndarray:
    """Round `x` to `dtype` once, to nearest even.

    bfloat16 needs care: ml_dtypes converts float64 through float32 and so may round twice. The
    numbers of bfloat16 have 8 significant bits and are multiples of 2**-133. So the spacing around
    each element is scaled to 1, the element is rounded to an integer and scaled back. The result is
    exact in bfloat16, or too large for it, and the last conversion no longer rounds.
    """
    x = np.asarray(x)
    if x.dtype != dtype and np.dtype(dtype) == BFLOAT16:
        x = x.astype(np.float64)
        _, exponent = np.frexp(x)  # 0.5 * 2**exponent <= |x| < 2**exponent
        spacing = np.maximum(exponent - 8, -133)
        x = np.ldexp(np.rint(np.ldexp(x, -spacing)), spacing)
    return x.astype(dtype)


def bits(x: np.ndarray) -> np.ndarray:
    """The bits of float32 numbers, one after another in C order."""
    assert x.dtype == np.float32
    return x.ravel(order="C").view(np.uint32)


@np.errstate(all="ignore")
def stochastic(x: np.ndarray, dtype: np.dtype, r: np.ndarray) -> np.ndarray:
    """Round float32 to bfloat16 or float16, up or down by 16 random bits r (uint32) for each element in C order."""
    b = bits(x)
    m = b & MAGNITUDE
    if dtype == BFLOAT16:
        h = np.where(m > INFINITY, NAN, (b + r >> np.uint32(16)).astype(np.uint16))
        return h.view(dtype).reshape(x.shape)
    assert dtype == np.float16
    subnormal = m < 0x38800000
    # In units of 2**-16 of a last place. The zeros in place of other numbers only keep the conversion from overflowing.
    small = np.where(subnormal, m, np.uint32(0)).view(np.float32) * np.float32(2.0**40)
    units = np.where(
        subnormal, small.astype(np.uint32), (m - np.uint32(0x38000000)) << np.uint32(3)
    )
    h = (units + r >> np.uint32(16)).astype(np.uint16)
    h = np.where(m >= 0x47800000, np.uint16(0x7C00), h)
    h = np.where(m > INFINITY, np.uint16(0x7E00), h)
    h = h | (b >> np.uint32(16) & np.uint32(0x8000)).astype(np.uint16)
    return h.view(dtype).reshape(x.shape)


def split(
    x: np.ndarray, master_bits: int, words: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """bfloat16, and the next 8 or 16 bits of float32 as a remainder.

    `words`, 32 bits for each element in C order, round what 24 bits lack at random.
    """
    b = bits(x)
    if master_bits == 32:
        assert words is None, "32 bits are exact"
        high = b + np.uint32(0x8000) >> np.uint32(16)
        low = (b - (high << np.uint32(16))).astype(np.uint16).view(np.int16)
    else:
        assert master_bits == 24
        odd = b >> np.uint32(8) & np.uint32(1)
        up = np.uint32(0x7F) + odd if words is None else words & np.uint32(0xFF)
        c = b + up >> np.uint32(8)
        high = c + np.uint32(0x80) >> np.uint32(8)
        low = (c - (high << np.uint32(8))).astype(np.uint8).view(np.int8)
    is_nan = (b & MAGNITUDE) > INFINITY
    high = np.where(is_nan, NAN, high.astype(np.uint16)).view(BFLOAT16)
    return high.reshape(x.shape), np.where(is_nan, low.dtype.type(0), low).reshape(x.shape)


def join(p: np.ndarray, remainder: np.ndarray) -> np.ndarray:
    """The float32 numbers of which `split` made this."""
    width = np.uint32(8 * remainder.itemsize)
    joined = p.ravel(order="C").view(np.uint16).astype(np.uint32) << width
    joined = joined + remainder.ravel(order="C").astype(np.int32).view(np.uint32)
    return (joined << np.uint32(16) - width).view(np.float32).reshape(p.shape)
