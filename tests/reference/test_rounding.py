"""Rounding at random is unbiased, and what a format can hold stays: over all numbers and all random bits.

How often a number is rounded up follows from the least random bits that round it up, since more bits never round down;
`test_more_bits_never_round_down` tries this on all bits.
"""

from __future__ import annotations

import numpy as np
import pytest
from cases import BFLOAT16, rng_for
from codes import decode, encode, uniform
from hypothesis import given, settings
from hypothesis import strategies as st
from reference import assert_same_bits
from rounding import join, split, stochastic

HALF = np.dtype("f2")
HALVES = [BFLOAT16, HALF]
LAST = 2**16 - 1
name_of = str  # pytest's ids of dtypes


def floats(bits: np.ndarray) -> np.ndarray:
    return np.asarray(bits).astype(np.uint32).view(np.float32)


def places(x: np.ndarray, dtype: np.dtype, r: np.ndarray) -> np.ndarray:
    """Where numbers are among those of the format, as rounded by r."""
    found = stochastic(x, dtype, np.asarray(r, np.uint32)).view(np.uint16)
    return (found & np.uint16(0x7FFF)).astype(np.int64)


def check_ups(x: np.ndarray, dtype: np.dtype, ups: np.ndarray) -> None:
    """Of the 65,536 random bits, so many round each number up by one place, and the others by none."""
    down = places(x, dtype, np.zeros(x.size))
    assert (places(x, dtype, np.maximum(LAST - ups, 0)) == down).all()
    up = ups > 0
    assert (places(x, dtype, np.where(up, LAST + 1 - ups, 0))[up] == down[up] + 1).all()
    assert (places(x, dtype, np.full(x.size, LAST))[up] == down[up] + 1).all()


def everything(dtype: np.dtype) -> np.ndarray:
    """Every number of the format but NaN."""
    every = np.arange(2**16, dtype=np.uint16).view(dtype)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        return every[~np.isnan(every.astype("f4"))]


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_more_bits_never_round_down(dtype: np.dtype) -> None:
    """All 65,536 random bits, for numbers of every kind."""
    rng = rng_for("monotone")
    spread = np.ldexp(rng.uniform(1, 2, 60), rng.integers(-28, 17, 60)).astype("f4")
    r = np.arange(2**16)
    for x in (*spread, np.float32(1e-41), np.float32(65519), np.float32(3.3e38)):
        found = places(np.full(r.size, x, "f4"), dtype, r)
        assert (np.diff(found) >= 0).all()
        assert found[-1] - found[0] <= 1


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_what_a_format_holds_stays(dtype: np.dtype) -> None:
    """Zeros, subnormals, all normal numbers, infinities, of both signs."""
    every = everything(dtype)
    x = every.astype("f4")
    for r in (0, 1, 2**15, LAST, rng_for("stays").integers(0, 2**16, every.size)):
        assert_same_bits(stochastic(x, dtype, np.broadcast_to(r, x.shape).astype("u4")), every)


def test_bfloat16_is_unbiased() -> None:
    """All 65,536 fractions between two neighbours: below all exponents, and among subnormals."""
    fractions = np.arange(2**16)
    for high in range(0, 0x7F80, 0x3F):  # each exponent, with changing digits
        check_ups(floats((high << 16) + fractions), BFLOAT16, fractions)
        check_ups(-floats((high << 16) + fractions), BFLOAT16, fractions)


def test_float16_is_unbiased_where_it_is_normal() -> None:
    """All 8,192 fractions, between four halves of each exponent and the next; above the largest is infinity."""
    fractions = np.arange(2**13)
    for exponent in range(1, 31):
        for digits in (0, 1, 0x2A5, 0x3FF):
            x = floats((((exponent + 112) << 23) | (digits << 13)) + fractions)
            check_ups(x, HALF, 8 * fractions)
            check_ups(-x, HALF, 8 * fractions)


def test_float16_subnormals_are_unbiased_within_a_65536th_of_a_last_place() -> None:
    rng = rng_for("subnormals")
    x = np.ldexp(rng.uniform(0.5, 1, 2**20), rng.integers(-50, -13, 2**20)).astype("f4")
    exact = np.ldexp(x.astype("f8"), 24)  # in last places
    assert (exact < 1024).all()
    ups = np.floor(np.ldexp(exact % 1, 16)).astype(np.int64)
    assert (places(x, HALF, np.zeros(x.size)) == np.floor(exact)).all()
    check_ups(x, HALF, ups)
    assert np.abs(exact % 1 - ups / 65536).max() < 1.53e-5


@pytest.mark.parametrize("dtype", HALVES, ids=name_of)
def test_nan_and_overflow(dtype: np.dtype) -> None:
    r = np.arange(0, 2**16, 5, dtype=np.uint32)
    nan = {0x7FC0} if dtype == BFLOAT16 else {0x7E00, 0xFE00}
    for bits in (0x7FC00000, 0x7F800001, 0x7FFFFFFF, 0xFFFFFFFF, 0xFF800001):
        found = stochastic(floats(np.full(r.shape, bits)), dtype, r).view(np.uint16)
        assert set(found.tolist()) <= nan
    infinity = np.array(np.inf, dtype)
    for x in (np.inf, 65536.0 if dtype == HALF else np.inf):
        assert_same_bits(
            stochastic(np.full(r.shape, x, "f4"), dtype, r), np.full(r.shape, infinity)
        )
    for x in (65504.0, -65504.0):  # float16's largest; just beyond it, the next is infinity
        found = stochastic(np.nextafter(np.full(2, x, "f4"), x * np.float32(2)), HALF, r[[0, -1]])
        assert found.tolist() == [x, np.copysign(np.inf, x)]


# ---- remainders --------------------------------------------------------------------------------------------------

STRIDE = 509


@given(first=st.integers(0, STRIDE - 1))
@settings(max_examples=2)
def test_32_bits_are_exact(first: int) -> None:
    """Whatever float32: also subnormals, infinities, zeros of both signs; and p is the nearest bfloat16.

    Some of all 2**32 numbers; `nox -s fuzz` takes others.
    """
    check_32_bits(np.arange(first, 2**32, STRIDE, dtype=np.uint32))


def check_32_bits(bits: np.ndarray) -> None:
    x = bits.view(np.float32)
    p, remainder = split(x, 32)
    finite = (bits & np.uint32(0x7FFFFFFF)) <= 0x7F800000
    assert (join(p, remainder).view(np.uint32)[finite] == bits[finite]).all()
    assert (p.view(np.uint16)[~finite] == 0x7FC0).all()
    assert not remainder[~finite].any()
    # Of the magnitude: to nearest, halves away from zero.
    size = bits & np.uint32(0x7FFFFFFF)
    nearest = (size + np.uint32(0x8000) >> np.uint32(16)).astype(np.uint16)
    assert ((p.view(np.uint16) & np.uint16(0x7FFF))[finite] == nearest[finite]).all()
    assert ((p.view(np.uint16) >> 15)[finite] == (bits >> np.uint32(31))[finite]).all()


def test_24_bits_are_exact_where_they_suffice() -> None:
    """All 2**24 numbers of 24 bits, in either rounding."""
    bits = np.arange(2**24, dtype=np.uint32) << np.uint32(8)
    x = bits.view(np.float32)
    finite = (bits & np.uint32(0x7FFFFFFF)) <= 0x7F800000
    for words in (None, np.full(x.shape, 0xFF, np.uint32)):
        p, remainder = split(x, 24, words)
        assert (join(p, remainder).view(np.uint32)[finite] == bits[finite]).all()
        assert (p.view(np.uint16)[~finite] == 0x7FC0).all()
        assert not remainder[~finite].any()


def test_24_bits_round_to_nearest_even() -> None:
    """All 256 rests of a number, for numbers even and odd of every exponent; from 0x7f7fff80 on it is infinite."""
    high = np.array([(e << 15) + d for e in range(255) for d in (0, 1, 0x2AAA, 0x7FFE, 0x7FFF)])
    rest = np.arange(256)
    exact = (high[:, None] << 8) + rest
    down_up = np.where(rest == 128, high[:, None] & 1, rest > 128)
    for sign in (0, 1 << 31):
        joined = join(*split(floats(exact | sign), 24)).view(np.uint32)
        assert (joined == ((high[:, None] + down_up) << 8 | sign)).all()
    first = floats(np.array([0x7F7FFF7F, 0x7F7FFF80]))
    assert join(*split(first, 24)).view(np.uint32).tolist() == [0x7F7FFF00, 0x7F800000]


def test_24_bits_are_unbiased() -> None:
    """All 256 rests with all 256 random bits; the upper bits of a word play no part."""
    rest, r = (a.ravel() for a in np.meshgrid(np.arange(256), np.arange(256)))
    for high in (0, 1, 0x3F8001, 0x7F7FFE, 0xBF8000):
        x = floats((high << 8) + rest)
        words = (r | 0xABCDEF00).astype(np.uint32)
        up = (join(*split(x, 24, words)).view(np.uint32) >> np.uint32(8)).astype(int) - high
        assert set(up.tolist()) == {0, 1}
        assert (np.bincount(rest, up) == np.arange(256)).all()


# ---- codes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("signed", "most"), [(True, 127), (False, 255)])
def test_codes_are_unbiased(signed: bool, most: int) -> None:
    """Of the 256 random bytes exactly trunc(256 f + 1/2) round up, f the fraction of y: all codes and 4,096 fractions.

    In each block one number is the largest code's, so that the unit is 1 and the root of a number is its y.
    """
    fractions = np.arange(2**12) / 2**12
    y = (np.arange(1 if not signed else 0, most)[:, None] + fractions).astype("f4").ravel()
    blocks = np.empty((-(-y.size // 63), 64), "f4")
    blocks[:, 0] = most
    blocks[:, 1:] = np.resize(y, (len(blocks), 63))
    flat = blocks.ravel()
    ups = np.trunc(256 * (flat % 1).astype("f8") + 0.5).astype(np.int64)
    for byte, rounded_up in ((255 - ups, False), (256 - ups, True)):
        u = uniform(np.clip(byte, 0, 255).astype(np.uint32))
        codes, units = encode(flat * flat, signed, u)
        assert (units == 1).all()
        tried = ups > 0 if rounded_up else ups < 256
        wanted = np.floor(flat) + rounded_up
        assert (codes[tried] == wanted[tried]).all()


def test_a_mean_square_that_is_not_zero_has_no_code_zero() -> None:
    x = np.float32([1.0, 1e-30, 0.0, 1e-45, -0.0])
    lowest = np.zeros(5, np.uint32)
    assert encode(x, False, uniform(lowest))[0].tolist() == [255, 1, 0, 1, 0]
    assert encode(x, True, uniform(lowest))[0].tolist() == [127, 0, 0, 0, 0]


def test_zeros_stay_zero_and_codes_stay_whatever_the_bytes() -> None:
    """What has been decoded is encoded with the same codes; a unit may move by a last place."""
    rng = rng_for("stay")
    for signed in (True, False):
        x = rng.standard_normal(64 * 200).astype("f4") ** 5
        x[rng.random(x.size) < 0.1] = 0
        codes, units = encode(x if signed else np.abs(x), signed)
        for byte in (0, 255):
            again, moved = encode(
                decode(codes, units), signed, uniform(np.full(x.size, byte, "u4"))
            )
            assert (again == codes).all()
            assert (np.abs(moved / units - 1) < 2e-7).all()


@pytest.mark.parametrize("signed", [True, False])
def test_special_blocks(signed: bool) -> None:
    """One infinity or NaN makes its block NaN and no other; a zero block has the unit 0."""
    x = np.ones((6, 64), "f4")
    x[0, 3], x[1, 63], x[2] = np.inf, np.nan, 0
    x[3] = 1e-45
    x[4, 7] = np.finfo("f4").max
    x[5, 7] = np.nextafter(np.nextafter(np.finfo("f4").max, 0), 0)
    codes, units = encode(x, signed)
    assert not codes[:3].any()
    assert np.isnan(units).tolist() == [True, True, False, False, False, False]
    assert units[2] == 0
    assert not np.signbit(units[2])
    found = decode(codes, units)
    assert np.isnan(found[:2]).all()
    assert not found[2].any()
    assert (found[3] == np.float32(1e-45)).all()
    # Of both signs, the two largest numbers are read as infinity, and make the block NaN in the next step.
    assert np.isposinf(found[4, 7]) == signed
    assert np.isfinite(found[5]).all()
