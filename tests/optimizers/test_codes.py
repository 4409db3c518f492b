"""The code of 8-bit states: `instep.storage.encode` and `decode`, by hand and at the edges."""

from __future__ import annotations

import platform
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from reference import assert_same_bits

import instep
from instep.storage import decode, encode

F = np.float32
KINDS = {True: (127, np.int8), False: (255, np.uint8)}


@np.errstate(all="ignore")
def by_hand(values: np.ndarray, signed: bool) -> tuple[np.ndarray, np.ndarray]:
    """One number at a time, in float32."""
    Q, dtype = KINDS[signed]
    flat = [F(x) for x in values.reshape(-1)]
    codes, units = [], []
    for begin in range(0, len(flat), 64):
        block = flat[begin : begin + 64]
        if not all(np.isfinite(x) for x in block):
            codes += [0] * len(block)
            units.append(F(np.nan))
            continue
        root = np.sqrt(F(max(abs(x) for x in block)))
        units.append(F(root / F(Q)))
        k = F(F(Q) / root) if root > 0 else F(0)
        for x in block:
            y = min(F(np.sqrt(abs(x)) * k), F(Q))
            q = min(int(F(y + F(0.5))), Q)
            if not signed and x > 0:
                q = max(q, 1)
            codes.append(-q if np.signbit(x) else q)
    return np.array(codes, dtype).reshape(values.shape), np.array(units, F)


def some(shape: Any, signed: bool, seed: int = 0) -> np.ndarray:
    """Numbers over many orders of magnitude, with zeros of both signs and whole blocks of zeros."""
    rng = np.random.default_rng(seed)
    values = np.asarray(rng.standard_normal(shape) * 10.0 ** rng.uniform(-30, 20, shape)).astype(F)
    flat = values.reshape(-1)
    flat[::7] = 0.0
    flat[3::14] = -0.0 if signed else 0.0
    flat[64:128] = 0.0
    return values if signed else np.asarray(np.abs(values))


SHAPES: list[Any] = [(), 0, 1, 63, 64, 65, 127, 128, 129, (3, 0), (7, 31), (5, 13, 11), 5000]


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize("shape", SHAPES)
def test_by_hand(shape: Any, signed: bool) -> None:
    values = some(shape, signed)
    codes, units = encode(values, signed=signed)
    wanted, wanted_units = by_hand(values, signed)
    assert_same_bits(codes, wanted, "codes")
    assert_same_bits(units, wanted_units, "units")
    assert (codes.shape, units.shape) == (values.shape, (-(-values.size // 64),))
    assert codes.flags.c_contiguous
    t = codes.astype(F) * np.repeat(units, 64)[: values.size].reshape(codes.shape)
    assert_same_bits(decode(codes, units), (t * np.abs(t)).astype(F), "decoded")


@pytest.mark.parametrize("signed", [True, False])
def test_in_the_order_of_c_whatever_the_layout(signed: bool) -> None:
    values = some((70, 9), signed)
    codes, units = encode(values, signed=signed)
    for other in (np.asfortranarray(values), values[:, ::-1].copy()[:, ::-1]):
        found, found_units = encode(other, signed=signed)
        assert_same_bits(found, codes, "codes")
        assert_same_bits(found_units, units, "units")
    assert_same_bits(
        decode(np.asfortranarray(codes), np.repeat(units, 2)[::2]), decode(codes, units), "decoded"
    )


@pytest.mark.parametrize("signed", [True, False])
def test_codes_are_the_nearest(signed: bool) -> None:
    """In the root, where codes are evenly spaced; what is decoded has its own code again."""
    values = some(64 * 50, signed, seed=1)
    codes, units = encode(values, signed=signed)
    again, again_units = encode(decode(codes, units), signed=signed)
    assert np.array_equal(again, codes)
    np.testing.assert_allclose(again_units, units, rtol=1e-6)
    root = np.sqrt(np.abs(values.astype(float)))
    off = np.abs(np.sqrt(np.abs(decode(codes, units).astype(float))) - root)
    unit = np.repeat(units, 64).astype(float)
    kept = (codes != 1) | signed  # 1 stands for all that is smaller
    assert (off[kept] <= 0.5 * unit[kept] * (1 + 1e-5)).all()


def test_zeros_and_the_smallest() -> None:
    tiny = np.array([1e-45, 0.0, -0.0, 1e30], F)
    codes, units = encode(np.abs(tiny), signed=False)
    assert codes.tolist() == [1, 0, 0, 255]
    codes, units = encode(tiny, signed=True)
    assert codes.tolist() == [0, 0, 0, 127]
    codes, units = encode(np.zeros(70, F), signed=True)
    assert not codes.any()
    assert not units.any()
    assert not np.signbit(units).any()
    codes, units = encode(np.full(2, 1e-45, F), signed=False)
    assert codes.tolist() == [255, 255]
    assert decode(codes, units).tolist() == np.full(2, 1e-45, F).tolist()


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_bad_number_takes_its_block(bad: float) -> None:
    values = np.ones(192, F)
    values[70] = bad
    codes, units = encode(values, signed=True)
    assert np.isnan(units).tolist() == [False, True, False]
    assert not codes[64:128].any()
    assert np.isnan(decode(codes, units)).tolist() == [64 <= i < 128 for i in range(192)]


def test_other_dtypes_are_rounded_to_float32_first() -> None:
    values = np.array([1.0 + 2.0**-30, 0.25, -2.0])
    for other in (values.astype(BFLOAT16), values.astype("f2"), values):
        codes, units = encode(other, signed=True)
        wanted, wanted_units = encode(other.astype(F), signed=True)
        assert_same_bits(codes, wanted, str(other.dtype))
        assert_same_bits(units, wanted_units, str(other.dtype))


@pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="sets the flags through glibc, in x86-64's numbers",
)
@pytest.mark.parametrize("name", ["FTZ_AND_DAZ", "ROUND_UP"])
def test_in_any_floating_point_environment(name: str) -> None:
    import float_flags  # noqa: PLC0415 (of glibc on x86-64)

    values = some(1000, signed=True, seed=2)
    values[:64] = 1e-41
    codes, units = encode(values, signed=True)
    decoded = decode(codes, units)
    with float_flags.flags(getattr(float_flags, name)):
        found = encode(values, signed=True)
        other = decode(codes, units)
    assert_same_bits(found[0], codes, "codes")
    assert_same_bits(found[1], units, "units")
    assert_same_bits(other, decoded, "decoded")


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda: encode([1.0], signed=True), TypeError, "values must be a NumPy array, got a list"),  # type: ignore[arg-type]
    (lambda: encode(np.ones(2, int), signed=True), TypeError, "values must have a floating-point"),
    (lambda: encode(np.ones(2), signed=1), TypeError, "signed must be True or False, got 1"),  # type: ignore[arg-type]
    (
        lambda: encode(np.array([1.0, -2.0]), signed=False),
        ValueError,
        r"values must be at least 0 without signed=True, got -2\.0",
    ),
    (lambda: encode(np.ma.ones(2), signed=True), TypeError, "values must be a plain NumPy array"),
    (lambda: decode(np.ma.ones(2, "i1"), np.ones(1, F)), TypeError, "codes must be a plain NumPy"),
    (lambda: decode(np.ones(2, "i1"), np.ma.ones(1, F)), TypeError, "units must be a plain NumPy"),
    (lambda: decode(np.ones(2), np.ones(1, F)), TypeError, "codes must have dtype int8 or uint8"),
    (lambda: decode([1], np.ones(1, F)), TypeError, "codes must be a NumPy array, got a list"),  # type: ignore[arg-type]
    (lambda: decode(np.ones(2, "i1"), np.ones(1)), TypeError, "units must have dtype float32, got"),
    (
        lambda: decode(np.ones(65, "i1"), np.ones(1, F)),
        ValueError,
        r"units must have shape \(2,\), one for each 64 of 65 codes, got \(1,\)",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_what_is_refused(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"^{message}"):
        call()


def test_they_are_the_optimizers() -> None:
    """To nearest, an optimizer's codes are those of `encode`, of a state in float32 beside it."""
    rng = np.random.default_rng(3)
    start = rng.standard_normal(5000).astype(F)
    grad = rng.standard_normal(5000).astype(F)
    coded = instep.Adam(start.copy(), state_dtype="8bit", rounding="nearest")
    wide = instep.Adam(start.copy())
    for optimizer in (coded, wide):
        optimizer.step(grad)
    for key, signed in (("exp_avg", True), ("exp_avg_sq", False)):
        codes, units = encode(wide.state["0"][key], signed=signed)
        assert_same_bits(coded.state["0"][key], codes, key)
        assert_same_bits(coded.state["0"][f"{key}_unit"], units, key)
