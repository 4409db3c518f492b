"""Schedules for the decay of a moving average."""

from dataclasses import dataclass
from math import log

from instep.schedules.base import Schedule
from instep.schedules.checks import count, positive_count, proper_fraction


def _half_life_less_one(decay: float) -> float:
    """Return one step less than the half-life of a decay."""
    return log(0.5) / log(decay) - 1.0


@dataclass(frozen=True, eq=False, repr=False)
class HalfLife(Schedule):
    """A decay whose half-life goes along a straight line from the half-life of `init` to that of `end`.

    ``f(t) = 0.5**(1 / (x + 1))`` with ``x = h(init) + (t / steps) * (h(end) - h(init))`` and
    ``h(b) = log(0.5) / log(b) - 1``, which is one step less than the half-life of b. At step 0 the
    value is `init`, from step `steps` on it is `end`.

    A value loses half of its weight in the moving average in one half-life. If the decay itself went
    along a straight line to a number near 1, the half-life would be short for nearly all steps, and
    grow in the last steps.

    Parameters
    ----------
    init, end : float
        Decays at step 0 and from step `steps` on, > 0 and < 1.
    steps : int
        Length in steps, at least 1.

    Raises
    ------
    ValueError
        If `init` or `end` is out of its range or `steps` less than 1.
    TypeError
        If `init` or `end` isn't a number or `steps` not an int.

    References
    ----------
    Pagliardini, Ablin, Grangier, "The AdEMAMix Optimizer: Better, Faster, Older", ICLR 2025: the
    schedule of beta3.

    Examples
    --------
    >>> from instep.schedules import HalfLife
    >>> f = HalfLife(0.5, 0.5**0.1, steps=9)  # half-lives of 1 and of 10 steps
    >>> f(0), round(f(3)**4, 12), f(9) == f(1_000) == 0.5**0.1
    (0.5, 0.5, True)
    """

    init: float
    end: float
    steps: int

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=proper_fraction, end=proper_fraction, steps=positive_count)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return self.end
        if t <= 0:
            return self.init
        first = _half_life_less_one(self.init)
        value: float = 0.5 ** (
            1.0 / (first + t / self.steps * (_half_life_less_one(self.end) - first) + 1.0)
        )
        return value


@dataclass(frozen=True, eq=False, repr=False)
class UniformAverage(Schedule):
    """The decay that makes a moving average the plain mean: ``f(t) = k / (k + 1)``, k = max(t - start, 0).

    For ``ema_decay``. The average is the mean of the weights after step `start`, ``start + 1`` and so
    on, steps counted from 0 (Polyak averaging, stochastic weight averaging). Until then, and in step
    `start` itself, the average equals the weights; of the values before, nothing is left, also if
    they were NaN. A parameter without a gradient in some of the steps keeps its average in these
    steps, so its mean has other weights.

    Parameters
    ----------
    start : int
        The step whose weights are the first in the mean: the number of steps completed before it,
        at least 0.

    Raises
    ------
    ValueError
        If `start` is negative.
    TypeError
        If `start` isn't an int.

    References
    ----------
    Polyak & Juditsky, "Acceleration of Stochastic Approximation by Averaging", SIAM Journal on
    Control and Optimization, 1992; Izmailov et al., "Averaging Weights Leads to Wider Optima and
    Better Generalization", UAI 2018 (SWA).

    Examples
    --------
    >>> import numpy as np, instep
    >>> from instep.schedules import UniformAverage
    >>> w = np.array([8.0])
    >>> optimizer = instep.SGD(w, lr=1.0, ema_decay=UniformAverage(start=1))
    >>> for _ in range(4):
    ...     optimizer.step(np.ones(1))  # the weight is 7, 6, 5, 4
    >>> optimizer.averages["0"]  # of 6, 5 and 4
    array([5.])
    """

    start: int = 0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(start=count)

    def _value(self, t: float) -> float:
        k = max(t - self.start, 0)
        return k / (k + 1)
