"""The schedules' values: against the documented formulas written in NumPy, and at their corners."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from schedule_classes import CLASSES

from instep.schedules import (
    Constant,
    CosineDecay,
    CosineRestarts,
    Cyclic,
    ExponentialDecay,
    HalfLife,
    InverseSqrtDecay,
    InverseTimeDecay,
    Linear,
    OneCycle,
    PiecewiseConstant,
    PiecewiseLinear,
    PolynomialDecay,
    Sequential,
    Shifted,
    SqrtDecay,
    UniformAverage,
    Warmup,
    WarmupStableDecay,
)

STEPS = np.arange(1000.0)
LARGEST = np.finfo(np.float64).max


def trapezoid(left, peak, warmup, stable, decay, init, end):
    x = np.clip((STEPS - warmup - stable) / decay, 0, 1)
    rise = init + (peak - init) * STEPS / warmup
    return np.where(warmup > STEPS, rise, end + (peak - end) * left(x))


FORMULAS = [
    (Constant(0.3), np.full(1000, 0.3)),
    (Linear(0.1, 0.7, 600), 0.1 + 0.6 * np.minimum(STEPS, 600) / 600),
    (
        PolynomialDecay(0.5, 700, end=0.01, power=2.5),
        0.49 * (1 - np.minimum(STEPS, 700) / 700) ** 2.5 + 0.01,
    ),
    (
        PolynomialDecay(0.5, 70, end=0.01, power=2.5, cycle=True),  # Keras' formula
        0.49 * (1 - STEPS / (70 * np.maximum(np.ceil(STEPS / 70), 1))) ** 2.5 + 0.01,
    ),
    (ExponentialDecay(0.5, 0.9, 7), 0.5 * np.exp(np.log(0.9) * STEPS / 7)),
    (
        ExponentialDecay(0.5, 0.9, 7, staircase=True),
        0.5 * np.exp(np.log(0.9) * np.floor(STEPS / 7)),
    ),
    (ExponentialDecay(0.5, 0.9, 7, end=0.02), np.maximum(0.5 * 0.9 ** (STEPS / 7), 0.02)),
    (ExponentialDecay(0.5, 1.1, 7, end=20.0), np.minimum(0.5 * 1.1 ** (STEPS / 7), 20.0)),
    (
        PiecewiseConstant([0.3, 0.2, 0.1], [100, 500]),
        np.repeat([0.3, 0.2, 0.1], [100, 400, 500]),
    ),
    (
        PiecewiseLinear([0.3, 0.3, 0.7, 0.1], [100, 250, 800]),
        np.interp(STEPS, [0, 100, 250, 800], [0.3, 0.3, 0.7, 0.1]),
    ),
    (InverseTimeDecay(0.5, 0.3, 10), 0.5 / (1 + 0.03 * STEPS)),
    (InverseTimeDecay(0.5, 0.3, 10, staircase=True), 0.5 / (1 + 0.3 * np.floor(STEPS / 10))),
    (InverseSqrtDecay(0.5, 40.0), 0.5 * (1 + STEPS / 40) ** -0.5),
    (SqrtDecay(0.5, 0.2), 0.5 / (1 + 0.2 * STEPS**0.5)),
    (
        CosineDecay(0.5, 800, end=0.01),
        0.01 + 0.49 * np.cos(np.pi * np.minimum(STEPS, 800) / 1600) ** 2,
    ),
    (
        CosineDecay(0.5, 800, end=0.01, exponent=1.5),
        0.01 + 0.49 * np.cos(np.pi * np.minimum(STEPS, 800) / 1600) ** 3,
    ),
    (
        CosineRestarts(0.5, 90, end=0.01),
        0.01 + 0.49 * np.cos(np.pi * (STEPS % 90) / 180) ** 2,
    ),
    (
        Cyclic(0.1, 0.5, 30, 70),
        np.interp(STEPS % 100, [0, 30, 100], [0.1, 0.5, 0.1]),
    ),
    (
        Cyclic(0.1, 0.5, 30, 70, "triangular2"),
        0.1 + np.interp(STEPS % 100, [0, 30, 100], [0, 0.4, 0]) / 2 ** np.floor(STEPS / 100),
    ),
    (
        Cyclic(0.1, 0.5, 30, 70, "exp_range", 0.997),
        0.1 + np.interp(STEPS % 100, [0, 30, 100], [0, 0.4, 0]) * 0.997**STEPS,
    ),
    (
        OneCycle(0.5, 900, 0.3, 10.0, 20.0, "linear"),
        np.interp(STEPS, [0, 269, 899], [0.05, 0.5, 0.0025]),
    ),
    (
        OneCycle(0.5, 900, 0.3, 10.0, 20.0),
        np.where(
            STEPS < 269,
            0.05 + 0.45 * np.sin(np.pi / 2 * STEPS / 269) ** 2,
            0.0025 + 0.4975 * np.cos(np.pi / 2 * np.clip((STEPS - 269) / 630, 0, 1)) ** 2,
        ),
    ),
    (
        OneCycle(0.5, 900, 0.3, 10.0, 20.0, "linear", three_phase=True),
        np.interp(STEPS, [0, 269, 538, 899], [0.05, 0.5, 0.05, 0.0025]),
    ),
    (
        WarmupStableDecay(0.5, 100, 400, 300, 0.02, 0.01),
        np.interp(STEPS, [0, 100, 500, 800], [0.02, 0.5, 0.5, 0.01]),
    ),
    (
        WarmupStableDecay(0.5, 100, 400, 300, 0.02, 0.01, "cosine"),
        trapezoid(lambda x: np.cos(np.pi / 2 * x) ** 2, 0.5, 100, 400, 300, 0.02, 0.01),
    ),
    (
        WarmupStableDecay(0.5, 100, 400, 300, 0.02, 0.01, "sqrt"),
        trapezoid(lambda x: 1 - np.sqrt(x), 0.5, 100, 400, 300, 0.02, 0.01),
    ),
    (
        Warmup(CosineDecay(0.5, 800, end=0.01), 150, init=0.1),
        np.concatenate(
            [
                np.linspace(0.1, 0.5, 150, endpoint=False),
                0.01 + 0.49 * np.cos(np.pi * np.minimum(STEPS[:850], 800) / 1600) ** 2,
            ]
        ),
    ),
    (
        Sequential([Linear(0.1, 0.5, 100), Constant(0.5), Linear(0.5, 0.0, 1000)], [100, 300]),
        np.interp(STEPS, [0, 100, 300, 1300], [0.1, 0.5, 0.5, 0.0]),
    ),
    (Shifted(Linear(0.1, 0.7, 600), 200), 0.1 + 0.6 * np.minimum(STEPS + 200, 600) / 600),
    (Shifted(Linear(0.1, 0.7, 600), -200), 0.1 + 0.6 * np.clip(STEPS - 200, 0, 600) / 600),
    (  # half-lives of 5 and of 80 steps
        HalfLife(0.5**0.2, 0.5**0.0125, 700),
        0.5 ** (1 / np.interp(STEPS, [0, 700], [5, 80])),
    ),
    (UniformAverage(30), 1 - 1 / np.maximum(STEPS - 29, 1)),
    (
        3 * Linear(0.1, 0.7, 600) * Constant(0.5),
        1.5 * (0.1 + 0.6 * np.minimum(STEPS, 600) / 600),
    ),
]


@pytest.mark.parametrize(("schedule", "values"), FORMULAS, ids=[repr(s) for s, _ in FORMULAS])
def test_formula(schedule, values):
    np.testing.assert_allclose(schedule(STEPS), values, rtol=1e-12, atol=0)


def test_every_class_has_a_formula():
    plateau = "ReduceOnPlateau"  # no function of the step; it has tests of its own
    assert {type(s) for s, _ in FORMULAS} == {c for c in CLASSES if c.__name__ != plateau}


@pytest.mark.parametrize(
    ("schedule", "corners", "values"),
    [
        (Linear(0.1, 0.7, 10), [0, 10], [0.1, 0.7]),
        (PiecewiseLinear([0.1, 0.7, 0.4], [7, 20]), [0, 7, 20], [0.1, 0.7, 0.4]),
        (WarmupStableDecay(0.5, 10, 5, 8), [0, 10, 15, 23], [0.0, 0.5, 0.5, 0.0]),
        (Warmup(Linear(0.5, 0.1, 10), 7), [0, 7, 17], [0.0, 0.5, 0.1]),
        (Cyclic(0.1, 0.5, 7, 13), [0, 7, 20, 27], [0.1, 0.5, 0.1, 0.5]),
        (OneCycle(1.0, 25, 0.4, 5.0, 2.0, "linear"), [0, 9, 24], [0.2, 1.0, 0.1]),
        (Sequential([Linear(0, 1, 5), Linear(1, 2, 5)], [5]), [0, 10], [0.0, 2.0]),
    ],
)
def test_fractions_of_a_step_lie_on_the_lines(schedule, corners, values):
    t = np.linspace(0, 27, 1081)
    np.testing.assert_allclose(schedule(t), np.interp(t, corners, values), rtol=1e-12, atol=1e-15)


def restarts(period, mult, until):
    """The restarts of an exact SGDR: (number, step, length of the cycle), as fractions."""
    start, length = Fraction(0), Fraction(period)
    for k in itertools.count():
        if start > until:
            return
        yield k, start, length
        start, length = start + length, length * mult


@pytest.mark.parametrize(
    ("period", "mult"),
    [
        (10, "1"),
        (1, "2"),
        (10, "2"),
        (7, "3"),
        (3, "10"),
        (1000, "2"),
        (4096, "1.5"),
        (5, "1.5"),
        (10, "1.1"),
        (1000, "1.1"),
        (100, "1.001"),
        (999_983, "1.000001"),
        (12, "2.718281828"),
    ],
)
def test_restarts_come_on_time(period, mult):
    """At each restart, where it is a whole step, and at the whole steps around it."""
    schedule = CosineRestarts(1.0, period, end=-1.0, period_mult=float(mult), init_mult=0.9)
    cycles = list(itertools.islice(restarts(period, Fraction(mult), 10**13), 300))
    for (k, start, length), (_, after, _) in itertools.pairwise(cycles):
        # Beyond 1e12 steps, a restart between two whole steps may be taken for one of them.
        whole = start.denominator == 1
        if not whole and start > 10**9:
            break
        first = math.ceil(start)
        for t in {first, first + 1, math.ceil(after) - 1, (first + math.ceil(after)) // 2}:
            if start <= t < after:
                x = float((t - start) / length)
                value = -1.0 + (0.9**k + 1.0) * (1.0 + math.cos(math.pi * x)) / 2.0
                assert schedule(t) == pytest.approx(value, abs=1e-9), (k, t)
        if whole:
            assert schedule(first) == pytest.approx(0.9**k, rel=1e-12)
            assert schedule(float(first)) == schedule(first)


@pytest.mark.parametrize("mult", [1.0, 2.0, 3.0, 10.0])
@pytest.mark.parametrize("period", [1, 2, 7, 10, 1000])
def test_restart_is_exact_on_its_step(period, mult):
    schedule = CosineRestarts(1.0, period, period_mult=mult, init_mult=0.9)
    start, length = 0, period
    for k in range(60):
        if start > 10**13:
            break
        assert schedule(start) == 0.9**k
        assert schedule(math.nextafter(start + length, 0)) < 0.9**k * 0.1
        if length > 1:
            assert schedule(start + length // 2) < 0.9**k * 0.8
            assert schedule(start + length - 1) < 0.9**k * 0.6
        start, length = start + length, length * int(mult)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
def test_cyclic_corners(mode):
    schedule = Cyclic(0.0, 1.0, 30, 70, mode, gamma=0.999)
    height = {
        "triangular": lambda k, t: 1.0,
        "triangular2": lambda k, t: 0.5**k,
        "exp_range": lambda k, t: 0.999**t,
    }[mode]
    for k in (0, 1, 2, 50):
        assert schedule(100 * k) == 0.0
        assert schedule(100 * k + 30) == pytest.approx(height(k, 100 * k + 30), rel=1e-14)
        assert schedule(100 * k + 15) == pytest.approx(height(k, 100 * k + 15) / 2, rel=1e-14)
        assert schedule(100 * k + 65) == pytest.approx(height(k, 100 * k + 65) / 2, rel=1e-14)
    assert Cyclic(0.0, 1.0, 30)(60) == 0.0
    assert Cyclic(0.0, 1.0, 30)(45) == 0.5


@pytest.mark.parametrize("anneal", ["linear", "cosine"])
@pytest.mark.parametrize("fraction", [0.0, 0.01, 0.05, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 10, 20, 100])
def test_one_cycle_of_few_steps(steps, fraction, anneal):
    schedule = OneCycle(1.0, steps, fraction, 4.0, 5.0, anneal)
    values = schedule(np.arange(steps + 5))
    assert np.all((values >= 0.05) & (values <= 1.0))
    assert np.all(values[steps - 1 :] == 0.05)
    top = fraction * steps - 1
    if top > 0:
        assert schedule(0) == pytest.approx(0.25)
        assert schedule(top) == pytest.approx(1.0)
        rises = np.diff(schedule(np.linspace(0, top, 20)))
        assert np.all(rises > 0)
    falls = np.diff(schedule(np.linspace(max(top, 0), steps - 1, 20)))
    assert np.all(falls < 0) or steps == 1


def test_trapezoid_without_its_first_parts():
    decay = CosineDecay(0.5, 30, end=0.1)
    for warmup, stable in ((0, 0), (0, 9), (9, 0)):
        schedule = WarmupStableDecay(0.5, warmup, stable, 30, 0.2, 0.1, "cosine")
        for t in range(50):
            assert schedule(warmup + stable + t) == pytest.approx(decay(t), rel=1e-14)
        assert schedule(0) == (0.2 if warmup else 0.5)


def test_growth_stops_at_the_largest_number():
    assert ExponentialDecay(1.0, 2.0)(10**12) == LARGEST
    assert ExponentialDecay(-1.0, 2.0)(10**12) == -LARGEST
    assert ExponentialDecay(2.0, 2.0)(1023.5) == LARGEST
    assert ExponentialDecay(0.0, 2.0)(10**12) == 0.0
    assert ExponentialDecay(1.0, 2.0, end=3.0)(10**12) == 3.0
    assert CosineRestarts(1.0, 1, init_mult=2.0)(10**12) == LARGEST
    assert CosineRestarts(1.0, 1, period_mult=1e300)(1e300) == 1.0


def test_warmup_and_sequential_take_any_callable():
    def in_two_parts(t):
        return np.float32(0.5) if t < 3 else 1  # no array could be passed to this

    for schedule in (
        Warmup(in_two_parts, 4),
        Sequential([in_two_parts, lambda t: -t], [9]),
        Constant(1.0) * in_two_parts,
        in_two_parts * Constant(1.0),
    ):
        values = schedule(np.arange(12))
        assert values.tolist() == [schedule(t) for t in range(12)]
        assert {type(schedule(t)) for t in range(12)} == {float}
    assert Warmup(in_two_parts, 4)(np.arange(8)).tolist() == [
        0,
        0.125,
        0.25,
        0.375,
        0.5,
        0.5,
        0.5,
        1,
    ]
    assert Sequential([in_two_parts, lambda t: -t], [9])(np.arange(8, 12)).tolist() == [
        1,
        0,
        -1,
        -2,
    ]


def test_products_from_both_sides():
    cosine = CosineDecay(0.1, 30)
    linear = Linear(0.1, 0.4, 20)
    for product in (
        2 * cosine,
        cosine * 2,
        2.0 * cosine,
        np.float64(2) * cosine,
        cosine * np.int64(2),
    ):
        assert product == 2 * cosine
        assert repr(product) == f"2.0 * {cosine!r}"
        assert product(7) == 2.0 * cosine(7)
    assert (cosine * linear)(7) == cosine(7) * linear(7)
    assert (cosine * linear) != (linear * cosine)
    assert (cosine * math.sqrt)(9) == 3.0 * cosine(9)
    assert (math.sqrt * cosine)(9) == 3.0 * cosine(9)
    assert repr(cosine * linear * 2) == f"2.0 * ({cosine!r} * {linear!r})"
    assert repr(2 * cosine * linear) == f"2.0 * {cosine!r} * {linear!r}"
