"""Schedules that keep a value for many steps, and change it in a single step."""

import operator
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from instep._support.rounding import rounded
from instep.schedules.base import Schedule
from instep.schedules.checks import boundaries, number, numbers, one_more


@dataclass(frozen=True, eq=False, repr=False)
class Constant(Schedule):
    """The same value at every step: ``f(t) = value``.

    Parameters
    ----------
    value : float
        The hyperparameter, in its own unit.

    Raises
    ------
    ValueError
        If `value` isn't finite.
    TypeError
        If `value` isn't a number.

    Notes
    -----
    Source: none; for compositions with other schedules.

    Examples
    --------
    >>> from instep.schedules import Constant
    >>> Constant(0.1)(1_000)
    0.1
    """

    value: float

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(value=number)

    def _value(self, t: float) -> float:
        return self.value

    def _times(self, factor: float) -> Schedule:
        return Constant(rounded(operator.mul, factor, self.value))

    def _takes_numbers_up(self) -> bool:
        return True


@dataclass(frozen=True, eq=False, repr=False)
class PiecewiseConstant(Schedule):
    """One value after another: ``f(t) = values[k]``, k = number of boundaries <= t.

    Parameters
    ----------
    values : sequence of float
        The hyperparameter between the boundaries, one value more than there are boundaries.
    boundaries : sequence of int
        The steps at which the next value begins: at least 1, strictly increasing.

    Raises
    ------
    ValueError
        If the lengths don't match, the boundaries don't increase or a value isn't finite.
    TypeError
        If an argument isn't a sequence, a value not a number or a boundary not an int.

    Notes
    -----
    Source: the step drops of He et al., "Deep Residual Learning for Image Recognition", CVPR 2016.

    Examples
    --------
    >>> from instep.schedules import PiecewiseConstant
    >>> f = PiecewiseConstant([0.1, 0.01, 0.001], [100, 150])
    >>> f(99), f(100), f(150)
    (0.1, 0.01, 0.001)
    """

    values: Sequence[float]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(values=numbers, boundaries=boundaries)
        one_more(f"{type(self).__name__}: values", self.values, self.boundaries)

    def _value(self, t: float) -> float:
        return self.values[bisect_right(self.boundaries, t)]
