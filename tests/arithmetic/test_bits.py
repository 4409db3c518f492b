"""The compiled steps equal the NumPy reference bit by bit: rules x options x dtypes x levels x threads x sizes."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from by_hand import BY_HAND
from cases import (
    BFLOAT16,
    CHUNK,
    DTYPES,
    LARGE_SIZES,
    LEVELS,
    MATRIX_VARIANTS,
    SMALL_SIZES,
    THREADS,
    VARIANTS,
    Guarded,
    Variant,
    labels,
    numbers,
    use_level,
)
from reference import Reference, assert_follows, assert_same_bits

import instep
from instep import _core

STEPS = 4


@lru_cache(maxsize=64)
def make_arrays(
    sizes: tuple[int, ...], dtype: Any, grad_dtype: Any, seed: int = 1
) -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    rng = np.random.default_rng(seed)
    params = {f"size {n}": numbers(rng, n, dtype) for n in sizes}
    grads = [
        {name: numbers(rng, p.size, grad_dtype) for name, p in params.items()} for _ in range(STEPS)
    ]
    return params, grads


@lru_cache(maxsize=4)
def expected(
    variant: Variant, sizes: tuple[int, ...], dtype: Any, grad_dtype: Any, **more: Any
) -> tuple[Any, Any, Reference]:
    """The arrays and the reference at its end; cached for the tests that differ in level or threads."""
    params, grads = make_arrays(sizes, dtype, grad_dtype)
    reference = Reference(variant.rule.__name__, params, **variant.options, **more)
    for grad in grads:
        reference.step(grad)
    return params, grads, reference


# Each rule has its loop tried at each level, in both types of the arithmetic. How a narrow format is read depends on
# the rule only if it has more loops than one for each type: such a rule has one narrow format at each level, another at
# one level, in turn. The digests (digests.py) have every choice of options in every format at every level.
HOT = {"SGD", "Momentum", "RMSprop", "Adam", "AdamW"}
SIZED = [
    (variant, dtype, level)
    for k, variant in enumerate(VARIANTS)
    for dtype in DTYPES
    for n, level in enumerate(LEVELS)
    if dtype in DTYPES[:2]
    or (
        dtype == DTYPES[2 + (k + n) % 2]
        and (variant.rule.__name__ in HOT or n == k // 2 % len(LEVELS))
    )
]
# How threads share the work depends neither on the format nor on the rule, unless the rule has sums.
SUMS = {name for name, rule in BY_HAND.items() if rule.sums is not None}
THREADED = [
    (variant, DTYPES[k % len(DTYPES)], threads)
    for k, variant in enumerate(VARIANTS)
    for threads in (THREADS[k % 2 :: 2] if variant.rule.__name__ not in SUMS else THREADS)
]
# Each rule and format at one level, in turn: the digests have the rest.
SPECIALS = [
    (variant, dtype, LEVELS[(k + n) % len(LEVELS)])
    for k, variant in enumerate(VARIANTS)
    for n, dtype in enumerate(DTYPES)
]


@pytest.mark.parametrize(("variant", "dtype", "level"), SIZED, ids=labels)
def test_every_size_at_every_level(variant: Variant, dtype: Any, level: str) -> None:
    use_level(level)
    start, grads, reference = expected(variant, tuple(SMALL_SIZES), dtype, dtype)
    guarded = Guarded()
    params = {name: guarded.put(p, offset=i % 5) for i, (name, p) in enumerate(start.items())}
    optimizer = variant.make(params)
    for i, grad in enumerate(grads):
        optimizer.step(
            {name: guarded.put(g, offset=(i + k) % 7) for k, (name, g) in enumerate(grad.items())}
        )
    assert_follows(optimizer, params, reference)
    guarded.check()
    assert _core.level() == level


@pytest.mark.parametrize(("variant", "dtype", "threads"), THREADED, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_every_thread_count(variant: Variant, dtype: Any, threads: int) -> None:
    instep.set_num_threads(threads)
    start, grads, reference = expected(variant, tuple(LARGE_SIZES), dtype, dtype)
    params = {name: p.copy() for name, p in start.items()}
    optimizer = variant.make(params)
    regions = _core.testing.counters()["parallel_regions"]
    for grad in grads:
        optimizer.step(grad)
    assert_follows(optimizer, params, reference)
    if instep.config()["openmp"]["version"]:
        taken = _core.testing.counters()["parallel_regions"] - regions
        assert taken == (STEPS if threads > 1 else 0), "one parallel region a step"


@pytest.mark.parametrize(
    ("label", "dtype"),
    [
        *(("AdamW-amsgrad", dtype) for dtype in DTYPES),
        ("RMSprop-centered", DTYPES[0]),
        ("RMSprop-centered", DTYPES[3]),
        ("SGD-nesterov-momentum", DTYPES[1]),
        ("SGD-nesterov-momentum", DTYPES[2]),
    ],
    ids=labels,
)
def test_long_steps_at_every_level(label: str, dtype: Any) -> None:
    """A long step goes through each stretch at once, a shorter one in pieces (cpp/runtime/step.cpp)."""
    variant = next(v for v in VARIANTS if v.label == label)
    start, grads, reference = expected(variant, (*SMALL_SIZES, 1_500_001), dtype, dtype)
    for level in LEVELS:
        use_level(level)
        guarded = Guarded()
        params = {name: guarded.put(p, offset=i % 5) for i, (name, p) in enumerate(start.items())}
        optimizer = variant.make(params)
        for grad in grads:
            optimizer.step(grad)
        assert_follows(optimizer, params, reference)
        guarded.check()


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.usefixtures("eager_threads")
def test_several_chunks_at_a_time(threads: int) -> None:
    """From 256 chunks on a thread takes several at once, of one parameter or of neighbours."""
    instep.set_num_threads(threads)
    rng = np.random.default_rng(4)
    sizes = [CHUNK * 299 + 5, 7, 0, CHUNK * 90 - 3, CHUNK * 3]
    grads = {str(n): rng.standard_normal(n, "f4") for n in sizes}
    start = {name: np.ones_like(g) for name, g in grads.items()}
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.SGD(params, lr=0.1, clip_norm=1e6)
    reference = Reference("SGD", start, lr=0.1, clip_norm=1e6)
    for absent in ("", "7"):
        given: dict[str, Any] = {n: None if n == absent else g for n, g in grads.items()}
        for each in (optimizer, reference):
            each.accumulate(given)
            each.step(given)
        assert optimizer.grad_norm == reference.grad_norm
    assert_follows(optimizer, params, reference)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("grad_dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize("state_dtype", [None, np.dtype("float16"), BFLOAT16], ids=str)
def test_mixed_formats(
    dtype: Any, grad_dtype: Any, state_dtype: Any, rounding: str, level: str
) -> None:
    use_level(level)
    more = {"state_dtype": state_dtype, "rounding": rounding}
    for variant in (v for v in VARIANTS if v.label in ("AdamW-amsgrad", "SGD-nesterov-momentum")):
        start, grads, reference = expected(variant, tuple(SMALL_SIZES), dtype, grad_dtype, **more)
        params = {name: p.copy() for name, p in start.items()}
        optimizer = variant.make(params, **more)
        for grad in grads:
            optimizer.step(grad)
        assert_follows(optimizer, params, reference)


def test_the_variants_compared_are_there() -> None:
    assert {v.label for v in VARIANTS} >= {"AdamW-amsgrad", "SGD-nesterov-momentum"}
    assert {v.rule.__name__ for v in VARIANTS} >= {"SGD", "Momentum", "RMSprop", "Adam", "AdamW"}
    for rule in _core.rules():
        assert any(v.rule._rule == rule for v in (*VARIANTS, *MATRIX_VARIANTS)), (
            f"no test reaches the rule {rule}"
        )


SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1.0, -1.0]


@pytest.mark.parametrize(("variant", "dtype", "level"), SPECIALS, ids=labels)
def test_special_values(variant: Variant, dtype: Any, level: str) -> None:
    """Zeros of both signs, infinities, NaN, subnormals, the largest numbers, in all pairs of p and g."""
    use_level(level)
    info = instep_finfo(dtype)
    values = np.array([*SPECIAL, *info, *(-x for x in info)], dtype)
    p, g = (a.ravel() for a in np.meshgrid(values, values))
    params = {"w": p.copy()}
    optimizer = variant.make(params)
    reference = Reference(variant.rule.__name__, params, **variant.options)
    for k in range(STEPS):
        grad = {"w": np.roll(g, k)}
        optimizer.step(grad)
        reference.step(grad)
        assert_follows(optimizer, params, reference)


def instep_finfo(dtype: Any) -> list[Any]:
    info = ml_dtypes.finfo(dtype)
    return [info.max, info.tiny, info.smallest_subnormal, info.tiny / 2, info.eps]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.dtype("float16"), BFLOAT16], ids=str)
@pytest.mark.parametrize("state_of", [np.dtype("float32"), np.dtype("float64")], ids=str)
def test_rounding_on_store(dtype: Any, state_of: Any, level: str) -> None:
    """Every tie and its neighbours: the momentum buffer of a first step is the gradient, rounded once."""
    use_level(level)
    patterns = np.arange(2**16, dtype=np.uint16).view(dtype)
    patterns = patterns[np.isfinite(patterns.astype("f4"))].astype(state_of)
    ordered = np.unique(patterns)
    ties = ordered[1:] / 2 + ordered[:-1] / 2
    last = ordered[-1] + (ordered[-1] - ordered[-2]) / 2  # from here on it is infinity
    ties = np.concatenate([ties, [last, -last]]).astype(state_of)
    far = [np.inf, np.nan, np.finfo(state_of).max, -np.finfo(state_of).max, -np.inf]
    around = [np.nextafter(ties, np.inf), np.nextafter(ties, -np.inf)]
    powers = np.ldexp(1.0, np.arange(np.finfo(state_of).maxexp))
    wide = np.concatenate([ordered, ties, *around, far, powers])
    grad = wide.astype(state_of)
    params = {"w": np.zeros(grad.shape, state_of)}
    optimizer = instep.Momentum(params, state_dtype=dtype, rounding="nearest")
    reference = Reference("Momentum", params, state_dtype=dtype, rounding="nearest")
    optimizer.step({"w": grad})
    reference.step({"w": grad})
    assert_same_bits(
        optimizer.state["w"]["momentum_buffer"],
        reference.state["w"]["momentum_buffer"],
        "the buffer",
    )


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", [np.dtype("float16"), BFLOAT16], ids=str)
def test_every_number_is_read(dtype: Any, level: str) -> None:
    """Subnormals, infinities and NaNs too: the momentum buffer of a first step is the gradient."""
    use_level(level)
    patterns = np.arange(2**16, dtype=np.uint16).view(dtype)
    optimizer = instep.Momentum(np.zeros(2**16, np.float32))
    optimizer.step(patterns)
    with np.errstate(invalid="ignore"):  # signalling NaNs
        wanted = patterns.astype(np.float32)
    assert_same_bits(optimizer.state["0"]["momentum_buffer"], wanted)


@pytest.mark.parametrize("level", LEVELS)
def test_a_limit_that_is_zero_keeps_the_sign_of_zero(level: str) -> None:
    """clip_value 1e-60 is zero in float32; the first of equals is kept, on either side."""
    use_level(level)
    params = {"w": np.zeros(40, "f4")}
    optimizer = instep.Momentum(params, clip_value=1e-60)
    reference = Reference("Momentum", params, clip_value=1e-60)
    grad = {"w": np.tile(np.array([0.0, -0.0], "f4"), 20)}
    optimizer.step(grad)
    reference.step(grad)
    buffer = optimizer.state["w"]["momentum_buffer"]
    assert np.signbit(buffer).tolist() == [False, True] * 20
    assert_same_bits(buffer, reference.state["w"]["momentum_buffer"])


@pytest.mark.parametrize("level", LEVELS)
def test_a_variance_that_rounding_makes_negative_is_zero(level: str) -> None:
    """The same gradient for long: its mean square and the square of its mean differ by roundings alone."""
    use_level(level)
    grad = {"w": np.random.default_rng(3).standard_normal(200).astype("f4")}
    params = {"w": np.zeros(200, "f4")}
    optimizer = instep.RMSprop(params, alpha=0.5, centered=True)
    reference = Reference("RMSprop", params, alpha=0.5, centered=True)
    for _ in range(60):
        optimizer.step(grad)
        reference.step(grad)
    state = optimizer.state["w"]
    assert (state["square_avg"] < state["grad_avg"] * state["grad_avg"]).any()
    assert_follows(optimizer, params, reference)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
@pytest.mark.parametrize(("float_", "int_"), [("f4", "u4"), ("f8", "u8")])
@pytest.mark.parametrize(
    ("dtype", "stored"), [("float16", {0x7E00, 0xFE00}), ("bfloat16", {0x7FC0})]
)
def test_every_nan_is_stored_as_one(
    dtype: str, stored: set[int], float_: str, int_: str, rounding: str, level: str
) -> None:
    """Whatever its payload, which cut or rounded might leave infinity or zero; float16 has a sign."""
    use_level(level)
    quiet = int(np.array(np.nan, float_).view(int_))
    infinity = int(np.array(np.inf, float_).view(int_))
    all_ones = np.iinfo(int_).max >> 1
    negative = np.iinfo(int_).max - all_ones
    patterns = [p | sign for p in (quiet, all_ones, infinity | 1) for sign in (0, negative)]
    optimizer = instep.Momentum(np.zeros(48, float_), state_dtype=dtype, rounding=rounding)
    optimizer.step(np.tile(np.array(patterns, int_), 8).view(float_))
    found = optimizer.state["0"]["momentum_buffer"].view(np.uint16)
    assert set(found.tolist()) <= stored


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_every_nan_is_stored_as_one_where_all_is_bfloat16(rounding: str, level: str) -> None:
    """There the arrays are computed in place, each beside its neighbours that are numbers."""
    use_level(level)
    patterns = [0x7FC0, 0x7FFF, 0x7F81, 0xFFC0, 0xFFFF, 0xFF81, 0x3F80]
    g = np.resize(np.array(patterns, np.uint16), 53).view(BFLOAT16)
    w = np.zeros(53, BFLOAT16)
    more = {"rounding": rounding, "param_rounding": rounding}
    optimizer = instep.Momentum(w, lr=0.5, state_dtype="bfloat16", **more)
    optimizer.step(g)
    is_one = g.view(np.uint16) == 0x3F80
    for array, number in ((w, 0xBF00), (optimizer.state["0"]["momentum_buffer"], 0x3F80)):
        assert (array.view(np.uint16) == np.where(is_one, number, 0x7FC0)).all()


@pytest.mark.parametrize("level", LEVELS)
def test_the_sign_of_negative_zero_is_positive_zero(level: str) -> None:
    """-0 plus l1 times the sign of a parameter that is -0."""
    use_level(level)
    w = np.full(40, -0.0)
    instep.SGD(w, l1=0.5).step(np.full(40, -0.0))
    assert np.signbit(w).all()


def test_the_factor_of_the_decoupled_decay_is_rounded_once() -> None:
    lr, weight_decay = 0.6, 0.9
    once, twice = np.float32(1 - lr * weight_decay), np.float32(1) - np.float32(lr * weight_decay)
    assert once != twice
    p = np.ones(1, "f4")
    instep.AdamW(p, lr=lr, weight_decay=weight_decay).step(np.zeros(1))
    assert p[0] == once
