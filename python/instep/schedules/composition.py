"""Schedules made of other schedules, and where they begin to count the steps."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from instep.schedules.base import LARGEST_STEP, Schedule, StepFunction
from instep.schedules.checks import (
    boundaries,
    count,
    number,
    offset,
    one_more,
    step_function,
    step_functions,
)


@dataclass(frozen=True, eq=False, repr=False)
class Warmup(Schedule):
    """A straight line to the first value of a schedule, then the schedule, with its steps counted from 0.

    ``f(t) = init + (schedule(0) - init) * t / steps`` for ``t < steps``, then
    ``schedule(t - steps)``. With ``Shifted(schedule, steps)`` in the schedule's place, its steps are
    counted from the start of the warm-up.

    Parameters
    ----------
    schedule : schedule or callable of the step
        The schedule that follows the warm-up.
    steps : int
        Length of the warm-up in steps; with 0 there is no warm-up.
    init : float
        Value at step 0, in the hyperparameter's unit. With the default, 0.0, the first step changes
        nothing.

    Raises
    ------
    ValueError
        If `steps` is negative or `init` not finite, or if schedules are nested more than 50 levels
        deep.
    TypeError
        If `schedule` isn't callable, `steps` not an int or `init` not a number.

    References
    ----------
    Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", arXiv:1706.02677,
    2017.

    Examples
    --------
    >>> from instep.schedules import Constant, Warmup
    >>> f = Warmup(Constant(0.2), steps=10)
    >>> f(0), f(5), f(10)
    (0.0, 0.1, 0.2)
    """

    schedule: StepFunction
    steps: int
    init: float = 0.0

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(schedule=step_function, steps=count, init=number)

    def _value(self, t: float) -> float:
        if t >= self.steps:
            return float(self.schedule(t - self.steps))
        return self.init + (float(self.schedule(0)) - self.init) * t / self.steps


@dataclass(frozen=True, eq=False, repr=False)
class Sequential(Schedule):
    """One schedule after another; each counts its steps from its own boundary.

    ``f(t) = schedules[k](t - start)``, where k is the number of boundaries <= t, and ``start`` is
    the last of these boundaries, or 0. A schedule that is to count from step 0 of the whole is put
    in as ``Shifted(schedule, start)``.

    Parameters
    ----------
    schedules : sequence of schedules or callables of the step
        One schedule more than there are boundaries.
    boundaries : sequence of int
        The steps at which the next schedule begins: at least 1, strictly increasing.

    Raises
    ------
    ValueError
        If the lengths don't match, the boundaries don't increase, or schedules are nested more than
        50 levels deep.
    TypeError
        If an argument isn't a sequence, a schedule not callable or a boundary not an int.

    Notes
    -----
    Source: none; the counterpart of PyTorch's ``SequentialLR``.

    Examples
    --------
    >>> from instep.schedules import Constant, Linear, Sequential
    >>> f = Sequential([Constant(0.5), Linear(0.5, 0.0, steps=10)], [100])
    >>> f(99), f(105), f(110)
    (0.5, 0.25, 0.0)
    """

    schedules: Sequence[StepFunction]
    boundaries: Sequence[int]

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(schedules=step_functions, boundaries=boundaries)
        one_more(f"{type(self).__name__}: schedules", self.schedules, self.boundaries)

    def _value(self, t: float) -> float:
        k = bisect_right(self.boundaries, t)
        start = self.boundaries[k - 1] if k else 0
        return float(self.schedules[k](t - start))


@dataclass(frozen=True, eq=False, repr=False)
class Shifted(Schedule):
    """A schedule that counts its steps from another step: ``f(t) = schedule(max(t + offset, 0))``.

    A positive offset begins in the middle of the schedule: use it for a run that goes on at step
    `offset` of an earlier run with a new optimizer. In a `Sequential` or `Warmup`, which count the
    steps of each part from 0, a part shifted by its own start gets the step of the whole.

    A negative offset delays the schedule: it keeps its first value for ``-offset`` steps.

    Parameters
    ----------
    schedule : schedule or callable of the step
        The schedule to shift.
    offset : int
        Added to the step; from -2**53 to 2**53.

    Raises
    ------
    ValueError
        If `offset` is out of its range, or if schedules are nested more than 50 levels deep.
    TypeError
        If `schedule` isn't callable or `offset` not an int.

    Notes
    -----
    Source: none; the counterpart of PyTorch's ``last_epoch`` argument.

    Examples
    --------
    >>> from instep.schedules import Constant, Linear, Sequential, Shifted
    >>> line = Linear(1.0, 0.0, steps=10)
    >>> rest = Shifted(line, 6)
    >>> rest(0) == line(6), rest(3) == line(9)
    (True, True)
    >>> late = Shifted(line, -100)
    >>> late(50), late(100), late(105)
    (1.0, 1.0, 0.5)
    >>> f = Sequential([Constant(1.0), Shifted(line, 5)], [5])
    >>> f(4), f(5), f(6) == line(6)
    (1.0, 0.5, True)
    """

    schedule: StepFunction
    offset: int

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(schedule=step_function, offset=offset)

    def _value(self, t: float) -> float:
        return float(self.schedule(min(max(t + self.offset, 0), LARGEST_STEP)))
