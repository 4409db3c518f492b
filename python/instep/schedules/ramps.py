"""Schedules that go from one value to another in a given number of steps, and stay there."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, pi, sqrt

from instep._support.checks import flag
from instep.schedules.base import Schedule
from instep.schedules.checks import (
    boundaries,
    count,
    number,
    numbers,
    one_more,
    one_of,
    positive,
    positive_count,
)
from instep.schedules.curves import half_cosine
from instep.schedules.writing import later_argument


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Schedule):
    """A straight line: ``f(t) = init + (end - init) * t / steps``, then `end`.

    Parameters
    ----------
    init, end : float
        Values at step 0 and from step `steps` on, in the hyperparameter's unit.
    steps : int
        Length in steps, at least 1.

    Raises
    ------
    ValueError
        If `init` or `end` isn't finite or `steps` is less than 1.
    TypeError
        If `init` or `end` isn't a number or `steps` not an int.

    Notes
    -----
    Source: none; the counterpart of PyTorch's ``LinearLR``, with values in place of factors.

    Examples
    --------
    >>> from instep.schedules import Linear
    >>> f = Linear(1.0, 0.5, steps=10)
    >>> f(0), f(5), f(1_000)
    (1.0, 0.75, 0.5)
    """

    init: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=number, end=number, steps=positive_count)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return self.end
        return self.init + (self.end - self.init) * t / self.steps


@dataclass(frozen=True, eq=False, repr=False)
class PiecewiseLinear(Schedule):
    """Points joined by straight lines: `values[0]` at step 0, ``values[k]`` at step ``boundaries[k - 1]``.

    ``f(t) = values[k] + (values[k + 1] - values[k]) * (t - start) / (stop - start)``, where k is the
    number of boundaries <= t, ``start`` is the last of these boundaries, or 0, and ``stop`` is the
    next boundary. From the last boundary on, f(t) is the last value. A value that stands twice, one
    after the other, is kept between its two steps. `PiecewiseConstant` with the same arguments has
    the same values at step 0 and at the boundaries.

    Parameters
    ----------
    values : sequence of float
        The hyperparameter at step 0 and at each boundary: one value more than there are boundaries.
    boundaries : sequence of int
        The steps of the other points: at least 1, strictly increasing.

    Raises
    ------
    ValueError
        If the lengths don't match, the boundaries don't increase or a value isn't finite.
    TypeError
        If an argument isn't a sequence, a value not a number or a boundary not an int.

    Notes
    -----
    Source: none; the counterpart of ``optax.piecewise_interpolate_schedule("linear", ...)``, with
    values in place of factors.

    Examples
    --------
    >>> from instep.schedules import PiecewiseLinear
    >>> f = PiecewiseLinear([0.0, 1.0, 1.0, 0.5], [10, 20, 30])
    >>> f(0), f(5), f(15), f(25), f(1_000)
    (0.0, 0.5, 1.0, 0.75, 0.5)
    """

    values: Sequence[float]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(values=numbers, boundaries=boundaries)
        one_more(f"{type(self).__name__}: values", self.values, self.boundaries)

    def _value(self, t: float) -> float:
        k = bisect_right(self.boundaries, t)
        if k == len(self.boundaries):
            return self.values[k]
        start = self.boundaries[k - 1] if k else 0
        rise = self.values[k + 1] - self.values[k]
        return self.values[k] + rise * (t - start) / (self.boundaries[k] - start)


@dataclass(frozen=True, eq=False, repr=False)
class PolynomialDecay(Schedule):
    """A power of the remaining part: ``f(t) = (init - end) * (1 - t/steps)**power + end``, then `end`.

    With `cycle`, ``n * steps`` takes the place of `steps`, where n is ``t / steps`` rounded up, at
    least 1. At step ``n * steps`` the value is `end`. Then it jumps to
    ``(init - end) * (1 / (n + 1))**power + end``, and falls again.

    Parameters
    ----------
    init, end : float
        Values at step 0 and from step `steps` on, in the hyperparameter's unit.
    steps : int
        Length in steps, at least 1.
    power : float
        Must be > 0. Above 1 the curve falls early, below 1 it falls late.
    cycle : bool
        Fall again after every multiple of `steps`, without end.

    Raises
    ------
    ValueError
        If `init` or `end` isn't finite, `steps` is less than 1 or `power` not > 0.
    TypeError
        If `steps` isn't an int, `cycle` not a bool or another argument not a number.

    References
    ----------
    Liu, Rabinovich, Berg, "ParseNet: Looking Wider to See Better", arXiv:1506.04579, 2015 (the
    "poly" policy). `cycle` is from Keras' ``PolynomialDecay``.

    Examples
    --------
    >>> from instep.schedules import PolynomialDecay
    >>> f = PolynomialDecay(1.0, steps=10, power=2.0)
    >>> f(0), f(5), f(1_000)
    (1.0, 0.25, 0.0)
    >>> f = PolynomialDecay(1.0, steps=10, cycle=True)
    >>> f(5), f(10), f(15), f(20)
    (0.5, 0.0, 0.25, 0.0)
    """

    init: float
    steps: int
    end: float = 0.0
    power: float = 1.0
    cycle: bool = later_argument(False)

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=number, steps=positive_count, end=number, power=positive, cycle=flag)

    def _value(self, t: float) -> float:
        steps = self.steps * max(1, ceil(t / self.steps)) if self.cycle else self.steps
        if t >= steps:
            return self.end
        left: float = (1.0 - t / steps) ** self.power
        return (self.init - self.end) * left + self.end


@dataclass(frozen=True, eq=False, repr=False)
class CosineDecay(Schedule):
    """Half a cosine wave: ``f(t) = end + (init - end) * ((1 + cos(pi*t/steps)) / 2)**exponent``, then `end`.

    Parameters
    ----------
    init, end : float
        Values at step 0 and from step `steps` on, in the hyperparameter's unit.
    steps : int
        Length in steps, at least 1.
    exponent : float
        Must be > 0. Above 1 the curve falls earlier, below 1 it falls later.

    Raises
    ------
    ValueError
        If `init` or `end` isn't finite, `steps` is less than 1 or `exponent` not > 0.
    TypeError
        If `steps` isn't an int or another argument not a number.

    References
    ----------
    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017; this is
    one period of it. `exponent` is from ``optax.cosine_decay_schedule``.

    Examples
    --------
    >>> from instep.schedules import CosineDecay
    >>> f = CosineDecay(1.0, steps=10)
    >>> f(0), f(5), f(1_000)
    (1.0, 0.5, 0.0)
    >>> CosineDecay(1.0, steps=10, exponent=2.0)(5)
    0.25
    """

    init: float
    steps: int
    end: float = 0.0
    exponent: float = later_argument(1.0)

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=number, steps=positive_count, end=number, exponent=positive)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return self.end
        left = half_cosine(pi * t / self.steps)
        if self.exponent != 1.0:  # the C library's pow need not return x for x**1
            left = left**self.exponent
        return self.end + (self.init - self.end) * left


# The part of peak - end that remains after a fraction x of the decay.
_LEFT: dict[str, Callable[[float], float]] = {
    "linear": lambda x: 1.0 - x,
    "cosine": lambda x: half_cosine(pi * x),
    "sqrt": lambda x: 1.0 - sqrt(x),
}


@dataclass(frozen=True, eq=False, repr=False)
class WarmupStableDecay(Schedule):
    """A trapezoid: up from `init` to `peak`, level, and down to `end`.

    ``f(t) = init + (peak - init) * t / warmup`` for ``t < warmup``, then `peak` for `stable` steps,
    then ``end + (peak - end) * left(x)``, where x is the elapsed fraction of `decay` and
    ``left(x)`` is ``1 - x`` ("linear"), ``(1 + cos(pi*x)) / 2`` ("cosine") or ``1 - sqrt(x)``
    ("sqrt"); then `end`.

    Parameters
    ----------
    peak : float
        Value of the level part, in the hyperparameter's unit.
    warmup, stable, decay : int
        Lengths of the three parts in steps. `warmup` and `stable` may be 0.
    init, end : float
        Values at step 0 and from step ``warmup + stable + decay`` on.
    shape : {"linear", "cosine", "sqrt"}
        The curve of the decay.

    Raises
    ------
    ValueError
        If a value isn't finite, a length is negative, `decay` is less than 1, or `shape` is
        unknown.
    TypeError
        If a value isn't a number, a length not an int or `shape` not a str.

    References
    ----------
    Hu et al., "MiniCPM: Unveiling the Potential of Small Language Models with Scalable Training
    Strategies", 2024; for "sqrt" Hägele et al., "Scaling Laws and Compute-Optimal Training Beyond
    Fixed Training Durations", NeurIPS 2024.

    Examples
    --------
    >>> from instep.schedules import WarmupStableDecay
    >>> f = WarmupStableDecay(1.0, warmup=10, stable=80, decay=10)
    >>> f(5), f(10), f(90), f(95), f(1_000)
    (0.5, 1.0, 1.0, 0.5, 0.0)
    """

    peak: float
    warmup: int
    stable: int
    decay: int
    init: float = 0.0
    end: float = 0.0
    shape: str = "linear"

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            peak=number,
            warmup=count,
            stable=count,
            decay=positive_count,
            init=number,
            end=number,
            shape=one_of(_LEFT),
        )

    def _value(self, t: float) -> float:
        if t < self.warmup:
            return self.init + (self.peak - self.init) * t / self.warmup
        over = t - self.warmup - self.stable
        if over <= 0:
            return self.peak
        if over >= self.decay:
            return self.end
        return self.end + (self.peak - self.end) * _LEFT[self.shape](over / self.decay)
