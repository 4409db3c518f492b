"""Cycles, exponents, phases and shifts: at their edges, and without them the same bits as ever."""

import math

import numpy as np
import pytest

from instep.schedules import (
    CosineDecay,
    Linear,
    OneCycle,
    PiecewiseConstant,
    PiecewiseLinear,
    PolynomialDecay,
    Sequential,
    Shifted,
    Warmup,
)

TIMES = [*range(70), 0.5, 33.3, 58.999, 59.0001, 10**6, 1e300]


def one_cycle(t):
    """Two phases, as OneCycle(0.7, 60) computed them before there were three."""
    first = 0.7 / 25.0
    last = first / 1e4
    top = 0.3 * 60 - 1.0
    if t >= 59:
        return last
    if t <= top:
        return 0.7 + (first - 0.7) * ((1.0 + math.cos(math.pi * (t / top))) / 2.0)
    return last + (0.7 - last) * ((1.0 + math.cos(math.pi * ((t - top) / (59 - top)))) / 2.0)


PLAIN = [
    (OneCycle(0.7, 60), one_cycle),
    (
        CosineDecay(0.7, 60, end=0.013),
        lambda t: (
            0.013 + (0.0 if t >= 60 else (0.7 - 0.013) * ((1.0 + math.cos(math.pi * t / 60)) / 2.0))
        ),
    ),
    (
        PolynomialDecay(0.7, 60, end=0.013, power=1.7),
        lambda t: 0.013 if t >= 60 else (0.7 - 0.013) * (1.0 - t / 60) ** 1.7 + 0.013,
    ),
]


@pytest.mark.parametrize(("schedule", "formula"), PLAIN, ids=[repr(s) for s, _ in PLAIN])
def test_the_defaults_change_no_bit(schedule, formula):
    assert [schedule(t) for t in TIMES] == [formula(t) for t in TIMES]


def test_a_cycle_is_keras_to_the_last_step_of_a_length():
    def keras(t, steps, power, init=0.5, end=0.01):
        n = 1.0 if t == 0 else math.ceil(t / steps)
        return (init - end) * (1 - t / (steps * n)) ** power + end

    for power in (0.5, 1.0, 2.0):
        schedule = PolynomialDecay(0.5, 7, 0.01, power, cycle=True)
        for t in (*range(100), 0.5, 6.999, 7.001, 20.5):
            assert schedule(t) == pytest.approx(keras(t, 7, power), rel=1e-14)
        assert schedule(0) == 0.5
        for k in (1, 2, 9, 10**9, 10**20):
            assert schedule(7 * k) == 0.01
        for n in (2, 3, 10):
            jump = 0.49 * (1 / n) ** power + 0.01
            assert schedule(math.nextafter(7 * (n - 1), 100)) == pytest.approx(jump, rel=1e-9)
        assert schedule(6) == PolynomialDecay(0.5, 7, 0.01, power)(6)


@pytest.mark.parametrize("power", [0.3, 1.7, 2.0])
def test_a_cycle_far_out(power):
    """Where n * steps is rounded, no part is left that is negative, whose power would be no real number."""
    for steps in (1, 3, 7, 2**53):
        schedule = PolynomialDecay(0.5, steps, 0.01, power, cycle=True)
        for t in (2**60 + 1, 3 * 2**60 + 1, 10**20 + 7, 1e17, 1e300, 10**300):
            value = schedule(t)
            assert type(value) is float
            assert 0.01 <= value <= 0.5


@pytest.mark.parametrize("exponent", [1e-300, 0.3, 2.0, 1e300])
def test_an_exponent_keeps_the_ends(exponent):
    schedule = CosineDecay(0.5, 10, end=0.1, exponent=exponent)
    assert (schedule(0), schedule(10), schedule(1e300)) == (0.5, 0.1, 0.1)
    assert 0.1 <= schedule(5) <= 0.5
    assert CosineDecay(0.5, 10, end=0.1, exponent=2.0)(5) == pytest.approx(0.2, rel=1e-14)


@pytest.mark.parametrize("anneal", ["linear", "cosine"])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.3, 0.5])
@pytest.mark.parametrize("steps", [10, 20, 100])
def test_three_phases_of_few_steps(steps, fraction, anneal):
    schedule = OneCycle(1.0, steps, fraction, 4.0, 5.0, anneal, three_phase=True)
    values = schedule(np.arange(steps + 5))
    assert np.all((values >= 0.05) & (values <= 1.0))
    assert np.all(values[steps - 1 :] == 0.05)
    top = fraction * steps - 1
    if top > 0:
        for t, value in ((0, 0.25), (top, 1.0), (2 * top, 0.25)):
            assert schedule(t) == pytest.approx(value)
        assert np.all(np.diff(schedule(np.linspace(0, top, 20))) > 0)
        assert schedule(top + 0.25 * top) == pytest.approx(schedule(top - 0.25 * top))
    falls = np.diff(schedule(np.linspace(max(top, 0), steps - 1, 40)))
    assert np.all(falls < 0)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_three_phases_without_a_rise(steps):
    schedule = OneCycle(1.0, steps, 0.0, 4.0, 5.0, three_phase=True)
    assert schedule(steps - 1) == 0.05
    assert np.all(schedule(np.arange(steps - 1)) < 0.25)


def test_lines_meet_the_constants_at_the_boundaries():
    values, boundaries = [0.3, 0.1, 0.1, -0.2], [3, 10, 11]
    lines, constants = (cls(values, boundaries) for cls in (PiecewiseLinear, PiecewiseConstant))
    for t in (0, *boundaries, *map(float, boundaries), 12, 1e300, 10**300):
        assert lines(t) == constants(t)
    assert lines(5) == lines(9.75) == 0.1
    assert lines(10.5) == pytest.approx(-0.05)
    assert PiecewiseLinear([0.3], [])(5) == 0.3
    assert PiecewiseLinear([0.1, 0.7], [9])(4) == Linear(0.1, 0.7, 9)(4)
    wide = PiecewiseLinear([0.0, 1.0], [2**53])
    assert (wide(2**52), wide(2**53 - 1), wide(2**53)) == (0.5, 1.0 - 2.0**-53, 1.0)


def test_a_shift_goes_on_in_the_middle():
    cosine = CosineDecay(0.1, 100)
    for offset in (0, 1, 40, 99, 100, 2**53):
        rest = Shifted(cosine, offset)
        assert rest(np.arange(50)).tolist() == cosine(np.arange(50) + offset).tolist()
        assert rest(0.25) == cosine(offset + 0.25)
    assert Shifted(Shifted(cosine, 30), -10)(15) == cosine(35)


def test_a_negative_shift_waits_at_the_first_value():
    line = Linear(0.3, 0.7, 10)
    late = Shifted(line, -5)
    assert [late(t) for t in (0, 4, 5, 5.5, 15)] == [0.3, 0.3, 0.3, line(0.5), 0.7]
    assert Shifted(line, -(2**53))(10**6) == 0.3
    assert Shifted(line, -(2**53))(1e300) == 0.7
    given = []
    Shifted(lambda t: given.append(t) or 1.0, -5)(np.arange(8))
    assert given == [0, 0, 0, 0, 0, 0, 1, 2]


def test_a_shift_stays_below_the_largest_step():
    line = Linear(0.3, 0.7, 10)
    for t in (1e300, int(1e300), 10**300):
        assert Shifted(line, 2**53)(t) == 0.7


def test_a_shifted_part_sees_the_steps_of_the_whole():
    cosine = CosineDecay(0.1, 100)
    for whole in (
        Sequential([Linear(0.0, 0.1, 20), Shifted(cosine, 20)], [20]),
        Warmup(Shifted(cosine, 20), 20),
    ):
        assert [whole(t) for t in range(20, 120)] == [cosine(t) for t in range(20, 120)]
    assert Warmup(Shifted(cosine, 20), 20)(10) == cosine(20) / 2
