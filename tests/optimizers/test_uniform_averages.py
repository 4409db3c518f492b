"""Averages at a rate of 1, where they become the weights, and the plain mean that begins with this rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import DTYPES, LEVELS, OPTIMIZERS, VARIANTS, Variant, labels, numbers, rng_for, use_level
from mixed_formats import check
from reference import Reference, assert_same_bits, compute_type

import instep
from instep.schedules import UniformAverage

SIZES = (1, 3, 34, 517)
# Of each rule with averages the choice without options, and with all terms: what follows does not depend on the rule.
AVERAGED = [
    next(variants)
    for rule in OPTIMIZERS
    if not rule._shows_iterate
    for variants in (
        (v for v in VARIANTS if v.rule is rule),
        (v for v in VARIANTS if v.rule is rule and v.label.endswith("all-terms")),
    )
]
BEFORE = (np.inf, -np.inf, np.nan, -0.0, 1e30, 1.0)


@pytest.mark.parametrize(
    ("variant", "dtype", "level"),
    [
        (variant, dtype, LEVELS[(k + n) % len(LEVELS)])
        for k, variant in enumerate(AVERAGED)
        for n, dtype in enumerate(DTYPES)
    ],
    ids=labels,
)
def test_the_average_becomes_the_weights(variant: Variant, dtype: np.dtype, level: str) -> None:
    """By bits, whatever it was: e + 1 * (p - e) is NaN for an infinite e, and often not p for another one."""
    use_level(level)
    rng = rng_for(repr(variant), dtype.name)
    first = {str(n): numbers(rng, n, dtype) for n in SIZES}
    optimizer = variant.make({n: w.copy() for n, w in first.items()}, ema_decay=0.0)
    reference = Reference(variant.rule.__name__, first, ema_decay=0.0, **variant.options)
    for name, average in optimizer.averages.items():
        average[...] = np.resize(BEFORE, average.shape)
        reference.averages[name][...] = average
    for _ in range(3):
        grads = {str(n): numbers(rng, n, dtype) for n in SIZES}
        optimizer.step(grads)
        reference.step(grads)
        check(optimizer, reference)
        if dtype == compute_type(dtype):
            for name, average in optimizer.averages.items():
                assert_same_bits(average, optimizer.params[name], name)


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("decay", [1e-30, 1e-9, 1e-7])
def test_the_rate_is_rounded_first(decay: float, dtype: np.dtype) -> None:
    """In float32, 1 - 1e-9 is 1; in float64 it is less, and what was NaN stays NaN."""
    w = np.ones(5, dtype)
    optimizer = instep.SGD(w, lr=0.25, ema_decay=decay)
    optimizer.averages["0"][...] = np.nan
    optimizer.step(np.ones(5))
    replaced = compute_type(dtype)(1 - decay) == 1
    assert replaced == (decay < (1e-16 if dtype == np.float64 else 1e-8))
    assert np.isnan(optimizer.averages["0"]).all() == (not replaced)


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("start", [0, 1, 4])
def test_the_mean_of_the_weights_since_a_step(start: int, dtype: np.dtype) -> None:
    rng = rng_for("mean", dtype.name)
    first = numbers(rng, 100, dtype)
    w = first.copy()
    optimizer = instep.Adam(w, lr=0.01, ema_decay=UniformAverage(start))
    reference = Reference("Adam", {"0": first}, lr=0.01, ema_decay=UniformAverage(start))
    weights = []
    for t in range(20):
        grad = numbers(rng, 100, dtype)
        optimizer.step(grad)
        reference.step({"0": grad})
        check(optimizer, reference)
        weights.append(w.astype("f8"))
        mean = np.mean(weights[start:], axis=0) if t > start else weights[-1]
        eps = float(np.finfo("f4").eps) if dtype.itemsize > 2 else 2.0**-8
        scale = np.abs(weights).max(axis=0)
        error = np.abs(optimizer.averages["0"] - mean) / scale
        assert error.max() <= (1e-14 if dtype == np.float64 else 8 * eps)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_nothing_before_the_start_is_left(bad: float) -> None:
    w = np.array([1.0, 2.0], "f4")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=UniformAverage(start=3))
    optimizer.step(np.array([bad, 0.0]))
    assert not np.isfinite(optimizer.averages["0"][0])
    w[0] = 5.0
    for _ in range(3):
        optimizer.step(np.ones(2))
    assert optimizer.averages["0"].tolist() == [2.0, -1.0] == w.tolist()
    optimizer.step(np.ones(2))
    assert optimizer.averages["0"].tolist() == [1.5, -1.5]


def resumed(optimizer: Any) -> Any:
    again = instep.AdamW(optimizer.params["0"].copy(), ema_decay=0.5)
    again.load_state_dict(optimizer.state_dict())
    return again


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 9])
def test_a_resumed_mean_goes_on_to_the_bit(stop: int) -> None:
    rng = np.random.default_rng(stop)
    grads = [numbers(rng, 50, "f4") for _ in range(12)]
    once = instep.AdamW(np.ones(50, "f4"), lr=0.01, ema_decay=UniformAverage(start=4))
    other: Any = instep.AdamW(np.ones(50, "f4"), lr=0.01, ema_decay=UniformAverage(start=4))
    for t, grad in enumerate(grads):
        once.step(grad)
        other = resumed(other) if t == stop else other
        other.step(grad)
    assert other.ema_decay == UniformAverage(start=4)
    assert_same_bits(once.averages["0"], other.averages["0"], "averages")
    assert_same_bits(once.params["0"], other.params["0"], "params")


def test_equals_the_averaged_model_of_torch() -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    w, start = rng.standard_normal(30), 5
    layer = torch.nn.Linear(30, 1, bias=False, dtype=torch.float64)
    averaged = torch.optim.swa_utils.AveragedModel(layer)
    optimizer = instep.SGD(w, lr=0.1, ema_decay=UniformAverage(start))
    for t in range(40):
        optimizer.step(rng.standard_normal(30))
        layer.weight.data[...] = torch.from_numpy(w)
        if t >= start:
            averaged.update_parameters(layer)
            theirs = averaged.module.weight.detach().numpy()[0]
            np.testing.assert_allclose(optimizer.averages["0"], theirs, rtol=1e-13, atol=1e-15)
