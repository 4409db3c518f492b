"""The decays of moving averages: half-lives, and the plain mean."""

import math
from fractions import Fraction

import numpy as np
import pytest

from instep.schedules import HalfLife, UniformAverage


def half_life(decay):
    return math.log(0.5) / math.log(decay)


def ademamix(step, beta_start, beta_end, warmup):
    """The schedule of beta3 as the authors' program has it, without the 1e-8 that it adds to the betas."""

    def f(beta):
        return math.log(0.5) / math.log(beta) - 1

    a = step / warmup
    return math.pow(0.5, 1 / ((1.0 - a) * f(beta_start) + a * f(beta_end) + 1))


@pytest.mark.parametrize(
    ("init", "end"), [(0.9, 0.9999), (0.9999, 0.9), (0.5, 0.5), (1e-300, 0.999999), (0.99, 1e-9)]
)
def test_the_half_life_goes_along_a_line(init, end):
    schedule = HalfLife(init, end, 1000)
    assert (schedule(0), schedule(0.0), schedule(1000), schedule(1e300)) == (init, init, end, end)
    for t in (1e-300, 1, 2.5, 500, 999, 999.999):
        assert schedule(t) == pytest.approx(ademamix(t, init, end, 1000), rel=1e-13)
        line = half_life(init) + t / 1000 * (half_life(end) - half_life(init))
        assert half_life(schedule(t)) == pytest.approx(line, rel=1e-9)
    assert HalfLife(init, end, 1)(0) == init
    assert HalfLife(init, end, 1)(1) == end


def test_far_from_a_line_of_the_decay_itself():
    """Half-way, the half-life is half of the last; a line of the decay would make it a tenth of this."""
    schedule = HalfLife(0.9, 0.9999, 1000)
    assert half_life(schedule(500)) == pytest.approx(3469, rel=1e-3)
    assert half_life((0.9 + 0.9999) / 2) < 14


@pytest.mark.parametrize("start", [0, 1, 7])
def test_weights_of_the_mean(start):
    """The share of each step in the average, from exact fractions of the decays."""
    schedule = UniformAverage(start)
    shares = [Fraction(1)]  # of the value before the first step
    for t in range(start + 9):
        decay = Fraction(schedule(t))
        shares = [share * decay for share in shares] + [1 - decay]
        count = max(t - start, 0) + 1
        assert all(share == 0 for share in shares[:-count])
        assert [float(share) for share in shares[-count:]] == pytest.approx([1 / count] * count)


def test_far_out():
    for start in (0, 5):
        schedule = UniformAverage(start)
        assert [schedule(t) for t in range(start + 1)] == [0.0] * (start + 1)
        assert schedule(start + 1) == 0.5
        assert schedule(start + 0.5) == 0.5 / 1.5
        assert schedule(start + 2**52) < 1.0
        assert schedule(1e300) == schedule(10**300) == 1.0
    assert UniformAverage(2**53)(2**53) == 0.0
    np.testing.assert_array_equal(UniformAverage(1)(np.arange(4)), [0, 0, 1 / 2, 2 / 3])
