"""The reference's rounding on store: all 65,536 numbers of a format, the middles between them, and their
neighbours in float64, which a conversion through float32 gets wrong."""

from __future__ import annotations

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, rng_for
from reference import assert_same_bits, store

HALVES = DTYPES[2:]
name_of = str  # pytest's ids of dtypes


def finite_numbers(dtype):
    with np.errstate(invalid="ignore"):  # signalling NaNs
        every = np.arange(65536, dtype=np.uint16).view(dtype).astype(np.float64)
    return np.unique(every[np.isfinite(every)])


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_keeps_every_number(dtype):
    every = np.arange(65536, dtype=np.uint16).view(dtype)
    for T in (np.float32, np.float64):
        with np.errstate(invalid="ignore"):  # signalling NaNs
            x = every.astype(T)
        assert_same_bits(store(x, dtype), every, T.__name__)


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_rounds_once_to_nearest_even(dtype):
    numbers = finite_numbers(dtype)
    low, high = numbers[:-1], numbers[1:]
    middle = (low + high) / 2
    above, below = np.nextafter(middle, np.inf), np.nextafter(middle, -np.inf)
    even = np.where(low.astype(dtype).view(np.uint16) % 2 == 0, low, high)
    for x, expected in ((middle, even), (above, high), (below, low)):
        np.testing.assert_array_equal(store(x, dtype).astype(np.float64), expected)
    single = middle.astype(np.float32)
    assert np.array_equal(single, middle) or dtype == BFLOAT16  # 2**-134 is a float32, too
    np.testing.assert_array_equal(store(single, dtype).astype(np.float64), even)


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_overflow_sign_nan(dtype):
    top, before = finite_numbers(dtype)[[-1, -2]]
    limit = top + (top - before) / 2
    x = [np.nextafter(limit, 0), limit, np.finfo(np.float64).max, np.inf, 5e-324, 0.0]
    expected = np.array([top, np.inf, np.inf, np.inf, 0.0, 0.0]).astype(dtype)
    assert_same_bits(store(np.array(x[2:]), dtype), expected[2:], "far")
    with np.errstate(over="ignore", under="ignore"):
        assert_same_bits(store(np.array(x), dtype), expected)
        assert_same_bits(store(-np.array(x), dtype), -expected, "negative")
    assert np.isnan(store(np.array([np.nan, -np.nan]), dtype).astype(np.float64)).all()
    assert store(np.float64(1.0), dtype).shape == ()


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_store_random(dtype):
    numbers = finite_numbers(dtype)
    rng = rng_for("store", dtype)
    x = rng.standard_normal(50_000) * 2.0 ** rng.integers(-150, 130, 50_000)
    x = x[np.abs(x) < numbers[-1]]
    at = np.searchsorted(numbers, x)
    low, high = numbers[at - 1], numbers[at]
    expected = np.where(x - low < high - x, low, high)  # no middle among these
    np.testing.assert_array_equal(store(x, dtype).astype(np.float64), expected)
