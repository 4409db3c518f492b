"""The random numbers of a step's roundings, in NumPy.

They are counter-based: a number follows from the seed, the parameter's place n, its step t, a stream and a counter
alone. So threads, chunks, instruction sets, resumption and ranks do not change it. Counters count elements of the whole
parameter in logical order, also where a part of it is stepped.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from bit_patterns import GOLDEN, MASK
from bit_patterns import mix as finalised

PARAMETER = 1  # the stream of the parameter itself; a state's stream is `stream_of` its number
LOW = 2**32 - 1


def stream_of(number: int) -> int:
    """The stream that a state shares with its neighbour in the table of the rule."""
    return 2 * (number // 2)


def mix(z: int) -> int:
    return int(finalised(z + GOLDEN & MASK))


def key(seed: int, n: int, t: int, stream: int, high: int = 0) -> tuple[int, int]:
    """The two halves of the key for the counters whose upper 32 bits are `high`."""
    whole = mix(mix(mix(mix(seed) ^ n) ^ t) ^ (4 * high + stream))
    return whole & LOW, whole >> 32


def scrambled(c: np.ndarray, k0: int, k1: int) -> np.ndarray:
    """32 bits for each counter (an array of uint32)."""
    u = np.uint32
    x = c ^ u(k0)
    x = (x ^ (x >> u(16))) * u(0x21F0AAAD)
    x = (x ^ (x >> u(15))) + u(k1)
    x = x * u(0xD35A2D97)
    x = (x ^ (x >> u(15))) * u(0x31848BAB)
    return x ^ (x >> u(14))


class Draws(NamedTuple):
    """The random numbers of one step of a parameter, from the element `first` on."""

    seed: int
    n: int
    t: int
    first: int = 0

    def _elements(self, size: int) -> np.ndarray:
        return np.arange(self.first, self.first + size, dtype=np.uint64)

    def words(self, size: int, stream: int = PARAMETER) -> np.ndarray:
        """32 bits for each of `size` elements, uint32: those of a parameter."""
        return self._words(self._elements(size), stream)

    def _words(self, counters: np.ndarray, stream: int) -> np.ndarray:
        x = np.empty(counters.shape, np.uint32)
        high = counters >> np.uint64(32)
        for part in np.unique(high):
            here = high == part
            low = counters[here].astype(np.uint32)  # which drops the upper half
            x[here] = scrambled(low, *key(self.seed, self.n, self.t, stream, int(part)))
        return x

    def halves(self, number: int, size: int) -> np.ndarray:
        """16 bits for each element of a state in 16 bits, as uint32."""
        shift = np.uint32(16 * (number % 2))
        return self.words(size, stream_of(number)) >> shift & np.uint32(0xFFFF)

    def bytes(self, number: int, size: int) -> np.ndarray:
        """8 bits for each element of a state in 8 bits, as uint32; two elements share a counter."""
        i = self._elements(size)
        x = self._words(i // np.uint64(64) * np.uint64(32) + i % np.uint64(32), stream_of(number))
        second = (i % np.uint64(64) >= 32).astype(np.uint32)
        return x >> (np.uint32(8 * (number % 2)) + np.uint32(16) * second) & np.uint32(0xFF)
