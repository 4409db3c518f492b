"""States in 8 bits: the signed square-root code, in blocks of 64 elements with one float32 unit each.

Every operation is one float32 operation. Elements are in logical C order; the last block may be shorter.
"""

from __future__ import annotations

import numpy as np

BLOCK = 64
INFINITY = 0x7F800000  # the bits from which on a number is infinite or NaN
TO_NEAREST = np.float32(0.5)


def largest_code(dtype: np.dtype) -> int:
    """127 for states of both signs, 255 for those that are never negative."""
    return int(np.iinfo(dtype).max)


def units_for(size: int) -> int:
    """The number of blocks of so many elements."""
    return -(-size // BLOCK)


def uniform(random_bytes: np.ndarray) -> np.ndarray:
    """What is added before a code is cut to an integer: in (0, 1), from 8 random bits."""
    return (random_bytes.astype(np.float32) + np.float32(0.5)) / np.float32(256)


@np.errstate(all="ignore")
def encode(
    values: np.ndarray, signed: bool, u: np.ndarray | np.float32 = TO_NEAREST
) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the values' shape, and units. `u` is TO_NEAREST, or `uniform` for each element in order."""
    assert values.dtype == np.float32
    dtype = np.dtype(np.int8 if signed else np.uint8)
    flat = values.ravel(order="C")
    blocks = np.zeros((units_for(flat.size), BLOCK), np.float32)  # zeros change no maximum
    blocks.ravel()[: flat.size] = flat
    largest = (blocks.view(np.uint32) & np.uint32(0x7FFFFFFF)).max(axis=1)
    broken = largest >= INFINITY
    root = np.sqrt(np.where(broken, np.uint32(0), largest).view(np.float32))
    most = np.float32(largest_code(dtype))
    units = np.where(broken, np.float32(np.nan), root / most)
    scale = np.where(root == 0, np.float32(0), most / root)
    y = np.minimum(np.sqrt(np.abs(flat)) * np.repeat(scale, BLOCK)[: flat.size], most)
    q = np.minimum(np.trunc(y + u), most)
    assert units.dtype == y.dtype == q.dtype == np.float32
    # A mean square that vanished under a mean that did not would make one huge step.
    q = np.copysign(q, flat) if signed else np.where(flat > 0, np.maximum(q, np.float32(1)), q)
    q = np.where(np.repeat(broken, BLOCK)[: flat.size], np.float32(0), q)
    return q.astype(dtype).reshape(values.shape), units


@np.errstate(all="ignore")
def decode(codes: np.ndarray, units: np.ndarray) -> np.ndarray:
    """The values, in float32. int8 codes are of both signs, uint8 codes are never negative."""
    flat = codes.ravel(order="C").astype(np.float32)
    t = flat * np.repeat(units, BLOCK)[: flat.size]
    return (t * (np.abs(t) if codes.dtype == np.int8 else t)).reshape(codes.shape)
