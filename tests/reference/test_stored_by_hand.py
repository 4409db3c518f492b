"""Random numbers, codes, rounding and remainders in NumPy against the same on single numbers (`by_hand.stored`)."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bit_patterns import numbers
from by_hand import BY_HAND, stored
from cases import BFLOAT16, rng_for
from codes import TO_NEAREST, decode, encode, uniform
from kinds import KINDS
from random_numbers import Draws, key
from reference import RULES, Reference, assert_same_bits
from rounding import join, split, stochastic

FAR = 2**32  # from here on counters have another key
PLACES = [(0, 0, 1), (1, 0, 1), (0, 1, 1), (0, 0, 2), (2**64 - 1, 3, 2**40), (12345, 10**6, 7)]


def singles(size: int, *place: object) -> np.ndarray:
    """float32 numbers of every kind: zeros, subnormals, huge ones, infinities, NaN among others."""
    return numbers("float32", (size,), True, *(len(repr(part)) for part in place)).copy()


def test_every_state_has_a_kind() -> None:
    assert KINDS.keys() == RULES.keys()
    for rule, kinds in KINDS.items():
        assert list(kinds) == list(RULES[rule].states), f"{rule}: the states and their order"


@pytest.mark.parametrize("rule", RULES)
def test_the_signs_of_states(rule: str) -> None:
    """States of both signs do have both, and the others are never negative, with any options that there are."""
    rng = rng_for(rule)
    on = {
        name: True for name, o in RULES[rule].defaults.items() if o is False and name != "maximize"
    }
    numbers = BY_HAND[rule].numbers | {"weight_decay": 0.1}
    start = {"w": rng.standard_normal(BY_HAND[rule].shape)}
    for options in ({}, {**on, **BY_HAND[rule].options}):
        negative, seen = set(), set()
        reference = Reference(rule, start, **numbers | options)
        for _ in range(20):
            reference.step({"w": rng.standard_normal(BY_HAND[rule].shape)})
            states = {name: reference.state["w"][name] for name in reference.kept_states["w"]}
            negative |= {name for name, state in states.items() if (state < 0).any()}
            seen |= states.keys()
        assert negative == {name for name in seen if KINDS[rule][name].signed}


def test_keys_that_were_worked_out_once() -> None:
    """So that a mistake in both copies of the formula shows: splitmix64 by its published first numbers."""
    published = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]  # of the seed 0
    golden = 0x9E3779B97F4A7C15
    assert [stored.mix_by_hand(k * golden % 2**64) for k in range(3)] == published


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("first", [0, 1, 64 * 5 + 33, FAR - 70, 2 * FAR - 70, FAR * 2**20 - 70])
def test_random_numbers(place: tuple[int, int, int], first: int) -> None:
    """Also where counters pass a multiple of 2**32: for bytes, twice as many elements later."""
    size = 150
    draws = Draws(*place, first)
    elements = range(first, first + size)
    assert draws.words(size).tolist() == [stored.word(*place, 1, i) for i in elements]
    for k in range(4):
        assert draws.halves(k, size).tolist() == [stored.half_of(*place, k, i) for i in elements]
        assert draws.bytes(k, size).tolist() == [stored.byte_of(*place, k, i) for i in elements]


def test_keys_differ() -> None:
    """Between seeds, parameters, steps, streams and upper halves of the counter."""
    keys = {
        key(seed, n, t, s, high)
        for seed in (0, 1, 2**63)
        for n in range(6)
        for t in range(6)
        for s in range(3)
        for high in (0, 1, 2**20)
    }
    assert len(keys) == 3 * 6 * 6 * 3 * 3


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("at_random", [True, False])
@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 640, 1000])
def test_codes(signed: bool, at_random: bool, size: int) -> None:
    """Blocks of ordinary numbers, of special numbers, of both, of zeros; the last one short."""
    rng = rng_for("codes", size)
    x = (rng.standard_normal(size) * 10.0 ** rng.uniform(-3, 1, size)).astype("f4")
    x[64:128] = singles(size, "codes")[64:128]
    x[128:192] = 0
    x[192:256] *= np.float32(1e-42)  # subnormals
    x[256:320] = rng.choice([0.0, -0.0, 1e-45, -3e38], 64)[: len(x[256:320])]
    x[320:384] *= np.float32(1e34)
    x[400:401], x[450:451], x[520:521] = np.inf, -np.inf, np.nan
    if not signed:
        x = np.abs(x)
    draws = Draws(3, 1, 4)
    u = uniform(draws.bytes(1, size)) if at_random else TO_NEAREST
    codes, units = encode(x, signed, u)
    assert codes.dtype == (np.int8 if signed else np.uint8)
    assert units.shape == (math.ceil(size / 64),)
    found = decode(codes, units)
    for b in range(len(units)):
        block = [stored.Single(v) for v in x[64 * b : 64 * b + 64].tolist()]
        places = [
            (stored.byte_of(3, 1, 4, 1, 64 * b + j) + 0.5) / 256 if at_random else 0.5
            for j in range(len(block))
        ]
        wanted, unit = stored.encode_by_hand(block, signed, places)
        assert codes[64 * b : 64 * b + 64].tolist() == wanted, f"block {b}"
        assert_same_bits(units[b], np.float32(unit), f"block {b}")
        with np.errstate(over="ignore"):  # the square of a root just below the largest float32's
            values = [stored_value(q, unit, signed) for q in wanted]
        assert_same_bits(found[64 * b : 64 * b + 64], np.array(values, "f4"), f"block {b}")


def stored_value(q: int, unit: float, signed: bool) -> float:
    try:
        return stored.decode_by_hand(q, unit, signed)
    except OverflowError:  # where struct refuses what float32 makes infinite
        return math.copysign(math.inf, q)


@pytest.mark.parametrize("dtype", [BFLOAT16, np.dtype("f2")], ids=str)
def test_16_bits(dtype: np.dtype) -> None:
    by_hand = stored.bfloat16_by_hand if dtype == BFLOAT16 else stored.float16_by_hand
    x = around_every_kind(dtype)
    for number in range(4):
        r = Draws(number, 5, 9).halves(number, x.size)
        found = stochastic(x, dtype, r).view(np.uint16).tolist()
        assert found == [by_hand(v, k) for v, k in zip(x.tolist(), r.tolist(), strict=True)]


def around_every_kind(dtype: np.dtype) -> np.ndarray:
    """float32 numbers of every exponent that matters, the format's own numbers, and their neighbours."""
    rng = rng_for("16 bits")
    spread = np.ldexp(rng.uniform(-2, 2, 3000), rng.integers(-30, 18, 3000))
    with np.errstate(invalid="ignore"):  # signalling NaNs
        own = rng.integers(0, 2**16, 500).astype(np.uint16).view(dtype).astype("f4")
    with np.errstate(all="ignore"):
        beside = [np.nextafter(own, np.float32(np.inf)), np.nextafter(own, np.float32(0))]
    some = [spread.astype("f4"), singles(1000), own, *beside, np.zeros(1, "f4"), -np.zeros(1, "f4")]
    return np.concatenate(some)


@pytest.mark.parametrize(("master_bits", "at_random"), [(32, False), (24, False), (24, True)])
def test_remainders(master_bits: int, at_random: bool) -> None:
    x = np.concatenate([around_every_kind(BFLOAT16), singles(3000)])
    words = Draws(1, 2, 3).words(x.size) if at_random else None
    p, remainder = split(x, master_bits, words)
    given = [None] * x.size if words is None else words.tolist()
    wanted = [
        stored.split_by_hand(v, master_bits, h) for v, h in zip(x.tolist(), given, strict=True)
    ]
    assert list(zip(p.view(np.uint16).tolist(), remainder.tolist(), strict=True)) == wanted
    joined = np.array([stored.join_by_hand(*pair, master_bits) for pair in wanted], "f4")
    assert_same_bits(join(p, remainder), joined)


def test_shapes_and_layouts() -> None:
    """Random bits go by the logical order, and a number without axes stays one."""
    x = rng_for("layouts").standard_normal((6, 50)).astype("f4")
    r = Draws(0, 0, 1).halves(0, x.size)
    for other in (np.asfortranarray(x), x[:, ::-1].copy()[:, ::-1]):
        assert_same_bits(stochastic(other, BFLOAT16, r), stochastic(x, BFLOAT16, r))
        for mine, plain in zip(encode(other, True), encode(x, True), strict=True):
            assert_same_bits(mine, plain)
        for mine, plain in zip(split(other, 24), split(x, 24), strict=True):
            assert_same_bits(mine, plain)
        assert_same_bits(join(*split(other, 32)), x)
    codes, units = encode(x[0, 0], True)
    assert (codes.shape, units.shape, decode(codes, units).shape) == ((), (1,), ())
    assert stochastic(x[0, 0], BFLOAT16, r[:1]).shape == join(*split(x[0, 0], 24)).shape == ()
    codes, units = encode(x[:0], False)
    assert (codes.shape, units.shape, decode(codes, units).shape) == ((0, 50), (0,), (0, 50))
