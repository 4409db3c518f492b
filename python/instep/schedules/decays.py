"""Schedules that fall (or grow) without end."""

from dataclasses import dataclass
from math import sqrt

from instep._support.checks import flag
from instep.schedules.base import Schedule
from instep.schedules.checks import (
    non_negative,
    number,
    optional_number,
    positive,
    positive_count,
)
from instep.schedules.curves import geometric


@dataclass(frozen=True, eq=False, repr=False)
class ExponentialDecay(Schedule):
    """A constant ratio: ``f(t) = init * rate**(t / steps)``, limited by `end`.

    Parameters
    ----------
    init : float
        Value at step 0, in the hyperparameter's unit.
    rate : float
        Factor for every `steps` steps, > 0. Above 1 the value grows, up to the largest float64.
    steps : int
        Steps in which the value is multiplied by `rate`, at least 1.
    staircase : bool
        Round ``t / steps`` down, so that the value changes only every `steps` steps.
    end : float, optional
        The bound at which the value stays: a lower bound if the value falls, an upper bound if it
        grows. None by default.

    Raises
    ------
    ValueError
        If `init` or `end` isn't finite, `rate` is not > 0, `steps` is less than 1, or the value
        moves away from `end`.
    TypeError
        If `steps` isn't an int, `staircase` not a bool or another argument not a number.

    References
    ----------
    Li & Arora, "An Exponential Learning Rate Schedule for Deep Learning", ICLR 2020. PyTorch's
    ``ExponentialLR``, and with `staircase` its ``StepLR``.

    Examples
    --------
    >>> from instep.schedules import ExponentialDecay
    >>> f = ExponentialDecay(1.0, 0.5, steps=10, staircase=True, end=0.2)
    >>> f(9), f(10), f(20), f(1_000)
    (1.0, 0.5, 0.25, 0.2)
    """

    init: float
    rate: float
    steps: int = 1
    staircase: bool = False
    end: float | None = None

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            init=number, rate=positive, steps=positive_count, staircase=flag, end=optional_number
        )
        if self.end is None:
            return
        rises = self.rate > 1.0 if self.init >= 0.0 else self.rate < 1.0
        if self.end < self.init if rises else self.end > self.init:
            expected = f"{'>=' if rises else '<='} init={self.init!r}"
            raise ValueError(
                f"ExponentialDecay: end must be {expected} at rate={self.rate!r}, got {self.end!r}"
            )

    def _value(self, t: float) -> float:
        n = t // self.steps if self.staircase else t / self.steps
        value = geometric(self.init, self.rate, n)
        if self.end is None:
            return value
        return max(value, self.end) if self.end <= self.init else min(value, self.end)


@dataclass(frozen=True, eq=False, repr=False)
class InverseTimeDecay(Schedule):
    """A hyperbola: ``f(t) = init / (1 + rate * t / steps)``.

    Parameters
    ----------
    init : float
        Value at step 0, in the hyperparameter's unit.
    rate : float
        How much the denominator grows every `steps` steps, >= 0.
    steps : int
        The unit of time in steps, at least 1.
    staircase : bool
        Round ``t / steps`` down, so that the value changes only every `steps` steps.

    Raises
    ------
    ValueError
        If `init` isn't finite, `rate` is negative or not finite, or `steps` less than 1.
    TypeError
        If `steps` isn't an int, `staircase` not a bool or another argument not a number.

    References
    ----------
    Robbins & Monro, "A Stochastic Approximation Method", Annals of Mathematical Statistics, 1951;
    Bottou, "Stochastic Gradient Descent Tricks", 2012.

    Examples
    --------
    >>> from instep.schedules import InverseTimeDecay
    >>> f = InverseTimeDecay(1.0, rate=0.5, steps=10)
    >>> f(0), f(20), f(60)
    (1.0, 0.5, 0.25)
    """

    init: float
    rate: float
    steps: int = 1
    staircase: bool = False

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=number, rate=non_negative, steps=positive_count, staircase=flag)

    def _value(self, t: float) -> float:
        n = t // self.steps if self.staircase else t / self.steps
        return self.init / (1.0 + self.rate * n)


@dataclass(frozen=True, eq=False, repr=False)
class InverseSqrtDecay(Schedule):
    """An inverse square root: ``f(t) = init / sqrt(1 + t / timescale)``.

    Parameters
    ----------
    init : float
        Value at step 0, in the hyperparameter's unit.
    timescale : float
        Steps after which the denominator is sqrt(2), > 0.

    Raises
    ------
    ValueError
        If `init` isn't finite or `timescale` not > 0.
    TypeError
        If an argument isn't a number.

    References
    ----------
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 5.3; here it begins at
    `init`, so that `Warmup` can lead to it.

    Examples
    --------
    >>> from instep.schedules import InverseSqrtDecay
    >>> f = InverseSqrtDecay(1.0, timescale=100)
    >>> f(0), f(300), f(1_500)
    (1.0, 0.5, 0.25)
    """

    init: float
    timescale: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=number, timescale=positive)

    def _value(self, t: float) -> float:
        return self.init / sqrt(1.0 + t / self.timescale)


@dataclass(frozen=True, eq=False, repr=False)
class SqrtDecay(Schedule):
    """A decay with the square root of time: ``f(t) = init / (1 + rate * sqrt(t))``.

    Known as "dynamic gradient descent".

    Parameters
    ----------
    init : float
        Value at step 0, in the hyperparameter's unit.
    rate : float
        How much the denominator grows in the first step, >= 0.

    Raises
    ------
    ValueError
        If `init` isn't finite or `rate` is negative or not finite.
    TypeError
        If an argument isn't a number.

    References
    ----------
    The rate 1/sqrt(t) is from Zinkevich, "Online Convex Programming and Generalized Infinitesimal
    Gradient Ascent", ICML 2003.

    Examples
    --------
    >>> from instep.schedules import SqrtDecay
    >>> f = SqrtDecay(1.0)
    >>> f(0), f(1), f(9)
    (1.0, 0.5, 0.25)
    """

    init: float
    rate: float = 1.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(init=number, rate=non_negative)

    def _value(self, t: float) -> float:
        return self.init / (1.0 + self.rate * sqrt(t))
