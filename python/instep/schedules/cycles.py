"""Schedules that rise again: once, or in every period."""

from collections.abc import Callable
from dataclasses import dataclass
from math import expm1, log, log1p, pi

from instep._support.checks import flag
from instep.schedules.base import Schedule
from instep.schedules.checks import (
    below_one,
    number,
    one_of,
    one_or_growing,
    optional_positive_count,
    positive,
    positive_count,
    up_to_one,
)
from instep.schedules.curves import LARGEST, geometric, half_cosine
from instep.schedules.writing import later_argument


@dataclass(frozen=True, eq=False, repr=False)
class CosineRestarts(Schedule):
    """Half a cosine wave from each restart to the next.

    ``f(t) = end + (init * init_mult**k - end) * (1 + cos(pi*p/n)) / 2`` at p steps after restart
    number k, where ``n = period * period_mult**k`` is the number of steps to the next restart.
    Restart k is at step ``period * (period_mult**k - 1) / (period_mult - 1)`` (at ``k * period`` if
    `period_mult` is 1). If this step is not a whole number only because of rounding, the restart is
    at the nearest whole step.

    Parameters
    ----------
    init : float
        Value at step 0, in the hyperparameter's unit.
    period : int
        Steps to the first restart, at least 1.
    end : float
        Every period falls towards this value. At the step that would reach it, the next period
        starts.
    period_mult : float
        Factor of the period at every restart: 1, or >= 1.000001.
    init_mult : float
        Factor of the initial value at every restart, > 0.

    Raises
    ------
    ValueError
        If an argument isn't finite or below its bound.
    TypeError
        If `period` isn't an int or another argument not a number.

    References
    ----------
    Loshchilov & Hutter, "SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017.

    Examples
    --------
    >>> from instep.schedules import CosineRestarts
    >>> f = CosineRestarts(1.0, period=10, period_mult=2.0, init_mult=0.5)
    >>> f(0), f(5), f(10), f(20), f(30)
    (1.0, 0.5, 0.5, 0.25, 0.25)
    """

    init: float
    period: int
    end: float = 0.0
    period_mult: float = 1.0
    init_mult: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            init=number,
            period=positive_count,
            end=number,
            period_mult=one_or_growing,
            init_mult=positive,
        )

    def _value(self, t: float) -> float:
        k, position, length = self._cycle(t)
        peak = geometric(self.init, self.init_mult, k)
        return self.end + (peak - self.end) * half_cosine(pi * position / length)

    def _cycle(self, t: float) -> tuple[float, float, float]:
        """Return the number of the cycle that has step t, the steps since its start, and its length."""
        if self.period_mult == 1.0:
            k, position = divmod(t, self.period)
            return k, position, self.period
        growth = min(t / self.period * (self.period_mult - 1.0), LARGEST)
        k = int(log1p(growth) / log(self.period_mult))
        # The logarithm is rounded: near a restart k can be the cycle before or after.
        start, after = self._start(k), self._start(k + 1)
        if t < start:
            k, start, after = k - 1, self._start(k - 1), start
        elif t >= after:
            k, start, after = k + 1, after, self._start(k + 2)
        return k, t - start, after - start

    def _start(self, k: int) -> float:
        """Return the step of restart k, for a period_mult above 1."""
        try:
            start = self.period * expm1(k * log(self.period_mult)) / (self.period_mult - 1.0)
            nearest = round(start)
        except OverflowError:
            return float("inf")
        return nearest if abs(start - nearest) <= 1e-12 * start else start


# The height of cycle k at step t, as a part of the height of the first cycle.
_HEIGHT: dict[str, Callable[[float, float, float], float]] = {
    "triangular": lambda k, t, gamma: 1.0,
    "triangular2": lambda k, t, gamma: 0.5**k,
    "exp_range": lambda k, t, gamma: gamma**t,
}


@dataclass(frozen=True, eq=False, repr=False)
class Cyclic(Schedule):
    """Triangles: `up` steps from `low` to `high`, `down` steps back, again and again.

    ``f(t) = low + (high - low) * x * height``, where x goes 0, 1, 0 along straight lines in every
    cycle k = 0, 1, ... and ``height`` is 1 ("triangular"), ``2**-k`` ("triangular2") or
    ``gamma**t`` ("exp_range").

    Parameters
    ----------
    low, high : float
        Values between cycles and at the top of the first cycle, in the hyperparameter's unit. `low`
        may be greater than `high`, as for a momentum that falls while the learning rate rises.
    up, down : int
        Steps up and steps down, at least 1. `down` equals `up` by default.
    mode : {"triangular", "triangular2", "exp_range"}
        How the height changes from cycle to cycle or, in mode "exp_range", from step to step.
    gamma : float
        Factor of the height at every step in mode "exp_range", > 0 and <= 1. Other modes don't
        use it.

    Raises
    ------
    ValueError
        If `low` or `high` isn't finite, `up` or `down` less than 1, `mode` unknown or `gamma` out
        of its range.
    TypeError
        If a value isn't a number, a length not an int or `mode` not a str.

    References
    ----------
    Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017.

    Examples
    --------
    >>> from instep.schedules import Cyclic
    >>> f = Cyclic(1.0, 3.0, up=10, mode="triangular2")
    >>> f(0), f(10), f(20), f(30)
    (1.0, 3.0, 1.0, 2.0)
    """

    low: float
    high: float
    up: int
    down: int | None = None
    mode: str = "triangular"
    gamma: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            low=number,
            high=number,
            up=positive_count,
            down=optional_positive_count,
            mode=one_of(_HEIGHT),
            gamma=up_to_one,
        )

    def _value(self, t: float) -> float:
        up = self.up
        down = up if self.down is None else self.down
        k, position = divmod(t, up + down)
        x = position / up if position <= up else (up + down - position) / down
        return self.low + (self.high - self.low) * x * _HEIGHT[self.mode](k, t, self.gamma)


# Curves from start to end, while x goes from 0 to 1.
_ANNEAL: dict[str, Callable[[float, float, float], float]] = {
    "cosine": lambda start, end, x: end + (start - end) * half_cosine(pi * x),
    "linear": lambda start, end, x: start + (end - start) * x,
}


@dataclass(frozen=True, eq=False, repr=False)
class OneCycle(Schedule):
    """One rise to a peak, and one longer fall to a value far below the first value.

    From ``peak / init_div`` at step 0 to `peak` at step ``warmup_fraction * steps - 1``, then to
    ``peak / init_div / end_div`` at step ``steps - 1``, along half cosine waves or straight lines.
    Later steps have the last value. With `three_phase`, the fall is in two parts: back to the first
    value, in as many steps as the rise, at step ``2 * (warmup_fraction * steps - 1)``; from there to
    the last value. The counterpart of PyTorch's ``OneCycleLR``.

    Parameters
    ----------
    peak : float
        The extreme value, in the hyperparameter's unit. For a momentum that goes 0.95, 0.85, 0.95:
        ``OneCycle(0.85, steps, init_div=0.85 / 0.95, end_div=1.0)``.
    steps : int
        Number of steps from the first value to the last, both included; at least 1.
    warmup_fraction : float
        Fraction of the steps up to and including the peak, >= 0 and < 1, with `three_phase` <= 0.5.
        If this is less than one step, the fall has already begun at step 0; with `three_phase`, it
        is the fall from the first value.
    init_div, end_div : float
        Divisors, > 0: the first value is ``peak / init_div``, the last value is the first value
        divided by `end_div`.
    anneal : {"cosine", "linear"}
        The curve of the rise and of the fall.
    three_phase : bool
        Return to the first value before the fall to the last value, as in the paper.

    Raises
    ------
    ValueError
        If `peak`, the first or the last value isn't finite, another argument is out of its range,
        or `anneal` is unknown.
    TypeError
        If `steps` isn't an int, `anneal` not a str, `three_phase` not a bool or another argument not
        a number.

    References
    ----------
    Smith & Topin, "Super-Convergence: Very Fast Training of Neural Networks Using Large Learning
    Rates", 2019.

    Examples
    --------
    >>> from instep.schedules import OneCycle
    >>> f = OneCycle(1.0, steps=101, warmup_fraction=0.5, init_div=4.0, end_div=2.0)
    >>> f(0), f(49.5), f(100), f(1_000)
    (0.25, 1.0, 0.125, 0.125)
    >>> f = OneCycle(1.0, steps=100, warmup_fraction=0.41, init_div=4.0, three_phase=True)
    >>> f(0), f(40), f(80), f(99)
    (0.25, 1.0, 0.25, 2.5e-05)
    """

    peak: float
    steps: int
    warmup_fraction: float = 0.3
    init_div: float = 25.0
    end_div: float = 1e4
    anneal: str = "cosine"
    three_phase: bool = later_argument(False)

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            peak=number,
            steps=positive_count,
            warmup_fraction=below_one,
            init_div=positive,
            end_div=positive,
            anneal=one_of(_ANNEAL),
            three_phase=flag,
        )
        if self.three_phase and self.warmup_fraction > 0.5:
            raise ValueError(
                "OneCycle: warmup_fraction must be a number >= 0 and <= 0.5 with three_phase, "
                f"got {self.warmup_fraction!r}"
            )
        first, last = self._ends()  # divisors are > 0, but may be tiny
        number("OneCycle: peak / init_div", first)
        number("OneCycle: peak / init_div / end_div", last)

    def _ends(self) -> tuple[float, float]:
        first = self.peak / self.init_div
        return first, first / self.end_div

    def _value(self, t: float) -> float:
        anneal = _ANNEAL[self.anneal]
        first, last = self._ends()
        top = self.warmup_fraction * self.steps - 1.0
        if t >= self.steps - 1:
            return last
        if t <= top and top > 0.0:
            return anneal(first, self.peak, t / top)
        if not self.three_phase:
            return anneal(self.peak, last, (t - top) / (self.steps - 1 - top))
        if t <= 2.0 * top and top > 0.0:
            return anneal(self.peak, first, (t - top) / top)
        return anneal(first, last, (t - 2.0 * top) / (self.steps - 1 - 2.0 * top))
