"""The random numbers of roundings are as good as the roundings need: tables of chi-square.

The z of a table is about normal if all cells are equally probable. No seed is tried here that was not fixed before, so
a z above 5 is no accident.
"""

from __future__ import annotations

import numpy as np
import pytest
import random_numbers
from random_numbers import Draws

COUNT = 2**22
LAGS = [1, 32, 64, 1024, 16_384]
PLACES = [  # each with a stream; of the last, half of the counters have another key
    (Draws(0, 0, 1), 0),
    (Draws(1, 17, 1000), 1),
    (Draws(2**64 - 1, 3, 2), 2),
    (Draws(0, 0, 1, 2**32 - COUNT // 2), 0),
]
LIMIT = 5.0


def z_of(cells: np.ndarray, count: int) -> float:
    """How far chi-square is from its mean, in its standard deviations."""
    seen = np.bincount(cells.ravel(), minlength=count).astype(float)
    assert seen.size == count
    wanted = cells.size / count
    degrees = count - 1
    return float((((seen - wanted) ** 2).sum() / wanted - degrees) / np.sqrt(2 * degrees))


def octets(words: np.ndarray) -> list[np.ndarray]:
    return [words >> np.uint32(8 * k) & np.uint32(0xFF) for k in range(4)]


def pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a << np.uint32(8) | b


def lagged(words: np.ndarray, lag: int) -> list[float]:
    """The z of the pairs of each byte with the same byte some counters later."""
    return [z_of(pairs(byte[:-lag], byte[lag:]), 2**16) for byte in octets(words)]


@pytest.mark.parametrize(("place", "stream"), PLACES, ids=str)
def test_bytes_and_halves(place: Draws, stream: int) -> None:
    """Each byte and each half alone; and two bytes that go to one element, or to two."""
    words = place.words(COUNT, stream)
    bytes_ = octets(words)
    alone = [z_of(byte, 2**8) for byte in bytes_]
    halves = [z_of(half, 2**16) for half in (words & np.uint32(0xFFFF), words >> np.uint32(16))]
    beside = [z_of(pairs(bytes_[i], bytes_[j]), 2**16) for j in range(4) for i in range(j)]
    assert max(map(abs, (*alone, *halves, *beside))) < LIMIT


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize(("place", "stream"), PLACES, ids=str)
def test_lags(place: Draws, stream: int, lag: int) -> None:
    """Between an element and others: of a vector, of its block, of the next block, of another chunk."""
    assert max(map(abs, lagged(place.words(COUNT, stream), lag))) < LIMIT


def test_steps_parameters_streams() -> None:
    """Between the bytes of one element at two steps, of two parameters, of two seeds, of two streams."""
    first = Draws(0, 0, 1)
    others = [first._replace(t=2), first._replace(n=1), first._replace(seed=1)]
    words = [first.words(COUNT), *(other.words(COUNT) for other in others)]
    words += [first.words(COUNT, stream) for stream in (0, 2)]
    for other in words[1:]:
        for a, b in zip(octets(words[0]), octets(other), strict=True):
            assert abs(z_of(pairs(a, b), 2**16)) < LIMIT


@pytest.mark.parametrize("lag", [64, 16_384])
def test_two_rounds_would_not_do(lag: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So these tables find a hash that is too weak."""

    def weaker(c: np.ndarray, k0: int, k1: int) -> np.ndarray:
        u = np.uint32
        x = c ^ u(k0)
        x = (x ^ (x >> u(16))) * u(0x21F0AAAD)
        x = (x ^ (x >> u(15))) + u(k1)
        x = x * u(0xD35A2D97)
        return x ^ (x >> u(15))

    monkeypatch.setattr(random_numbers, "scrambled", weaker)
    assert max(lagged(PLACES[0][0].words(COUNT), lag)) > LIMIT
