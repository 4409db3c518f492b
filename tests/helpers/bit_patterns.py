"""Numbers made of bit patterns, and digests of arrays, the same on every machine.

The bits are from splitmix64 (Steele, Lea, Flood 2014), made by integer operations alone. A digest is a sum of mixed
64-bit words, each of an element's bits and its place in C order. Neither depends on the byte order. All NaNs count as
the same NaN. tests/cpp/bits.hpp has the same in C++.
"""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

MASK, GOLDEN = 2**64 - 1, 0x9E3779B97F4A7C15


def mix(z: Any) -> Any:
    """The finaliser of splitmix64, on an int, or on an array of uint64."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


@cache
def words(seed: int, count: int) -> np.ndarray:
    """The first numbers of splitmix64 with this seed."""
    counter = np.arange(1, count + 1, dtype=np.uint64)
    return mix(counter * np.uint64(GOLDEN) + np.uint64(seed))


def fold(state: int, value: int) -> int:
    """Add a number to a running digest."""
    return mix(mix(GOLDEN + state & MASK) ^ value)


def fold_array(state: int, array: np.ndarray) -> int:
    """Add an array to a running digest: every element's bits and its place, with the same bits for every NaN."""
    bits = array.ravel().view(f"u{array.itemsize}").astype(np.uint64)
    bits[np.isnan(array.ravel())] = MASK
    total = np.add.reduce(mix(words(0, bits.size) ^ bits), dtype=np.uint64)
    return fold(fold(state, bits.size), int(total))


class Format(NamedTuple):
    dtype: Any
    exponent_bits: int
    fraction_bits: int


FORMATS = {
    "float64": Format(np.dtype("float64"), 11, 52),
    "float32": Format(np.dtype("float32"), 8, 23),
    "float16": Format(np.dtype("float16"), 5, 10),
    "bfloat16": Format(np.dtype(ml_dtypes.bfloat16), 8, 7),
}


@cache
def numbers(form: str, shape: tuple[int, ...], special: bool, *place: int) -> np.ndarray:
    """Numbers of both signs, from 2**-6 to 4; with `special`, also zeros, subnormals, huge numbers, infinities, NaN.

    Each of these kinds is a sixteenth of the elements, with infinities and NaN as one kind.
    """
    seed = 0
    for part in place:
        seed = fold(seed, part)
    _, exponent_bits, fraction_bits = FORMATS[form]
    count = int(np.prod(shape, dtype=int))
    r = words(seed, count)
    fraction = r & np.uint64(2**fraction_bits - 1)
    low = np.uint64(2 ** (exponent_bits - 1) - 1 - 6)
    exponent = (r >> np.uint64(52) & np.uint64(7)) + low
    if special:
        largest = np.uint64(2**exponent_bits - 1)
        kind = r >> np.uint64(55) & np.uint64(15)
        exponent[kind == 0] = fraction[kind == 0] = 0
        exponent[kind == 1] = 0
        exponent[kind == 2] = largest - np.uint64(1)
        exponent[kind == 3] = largest
        fraction[(kind == 3) & (r >> np.uint64(59) & np.uint64(1) == 0)] = 0
    sign = r >> np.uint64(63)
    bits = ((sign << np.uint64(exponent_bits)) | exponent) << np.uint64(fraction_bits) | fraction
    dtype = FORMATS[form].dtype
    return bits.astype(f"u{dtype.itemsize}").view(dtype).reshape(shape)
