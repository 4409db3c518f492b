"""The base of all schedules: evaluation, `*` and its `Product`, comparison, text, dictionary and plot."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias, overload

import numpy as np

from instep._support import documentation
from instep._support.rounding import rounded
from instep._support.wording import missing, shown
from instep.schedules.checks import number, positive_count, step_function
from instep.schedules.writing import DEEPEST, constructor_fields, levels, to_dict

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

StepFunction: TypeAlias = Callable[[float], float]
"""The type of schedules and of other callables from the number of completed steps to a number.

It is not step decay. For step decay, use `ExponentialDecay` with ``staircase=True``, or
`PiecewiseConstant`.
"""

LARGEST_STEP = 1e300  # leaves room to the formulas: none overflows on the way


@documentation.without_quotes
@dataclass(frozen=True, eq=False, repr=False)
class Schedule(ABC):
    """A hyperparameter as a function of the number of completed steps.

    To write a schedule, derive a frozen dataclass and define ``_value(t)`` for one number
    ``t >= 0``. If you don't need arrays, ``*`` and `plot`, a plain function is enough.

    Derive with ``@dataclass(frozen=True, eq=False, repr=False)``: the class inherits comparison,
    hash and text from this class, so the dataclass need not generate them.

    Schedules may hold schedules, at most 50 levels deep: evaluation, comparison, copying and
    storing recurse once for each level. A ``__post_init__`` of your own must call
    ``super().__post_init__()``, which raises ValueError for deeper nesting.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from instep.schedules import Schedule, Warmup
    >>> @dataclass(frozen=True, eq=False, repr=False)
    ... class Halving(Schedule):
    ...     init: float
    ...
    ...     def _value(self, t):
    ...         return self.init * 0.5**t
    >>> f = Warmup(Halving(1.0) * 8, steps=4)
    >>> f(2), f([4, 5])
    (4.0, array([8., 4.]))
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._stored_as = None
        if cls.__module__.startswith("instep.schedules."):
            cls.__module__ = "instep.schedules"  # the public path, which pickles contain
            cls._stored_as = cls.__name__

    # The name that `from_dict` knows; None for a user's class.
    _stored_as: ClassVar[str | None] = None
    # With None, NumPy's numbers leave `number * schedule` to __rmul__.
    __array_ufunc__: ClassVar[None] = None

    def __post_init__(self) -> None:
        """Refuse schedules nested too deeply."""
        if levels(self) > DEEPEST:
            raise ValueError(
                f"{type(self).__name__}: schedules must be nested at most {DEEPEST} levels deep, got "
                "more; numbers multiply without a new level, and one Sequential takes any number of "
                "schedules"
            )

    @abstractmethod
    def _value(self, t: float) -> float:
        """Return the value at one step, which has been checked."""

    @overload
    def __call__(self, step: float) -> float: ...

    @overload
    def __call__(self, step: NDArray[Any] | Sequence[float]) -> NDArray[np.float64]: ...

    def __call__(self, step: Any) -> float | NDArray[np.float64]:
        """Return the value at `step`, the number of completed steps (0 at the first step).

        Parameters
        ----------
        step : int, float or array of them
            At least 0 and at most 1e300; fractions of a step are allowed.

        Returns
        -------
        float, or float64 array of the same shape
            Each element equals, to the bit, the value of a call with the same number alone.

        Raises
        ------
        ValueError
            If a step is negative, above 1e300 or NaN.
        TypeError
            If `step` is neither a number nor an array of numbers.
        """
        kind = type(step)
        if (kind is int or kind is float) and 0 <= step <= LARGEST_STEP:
            return self._value(step)
        return self._value_of_other(step)

    def _value_of_other(self, step: Any) -> float | NDArray[np.float64]:
        """Evaluate NumPy's numbers and arrays; refuse everything else that isn't a step."""
        if type(step) is int or type(step) is float:
            raise ValueError(f"step must be a number >= 0 and <= 1e300, got {shown(step)}")
        steps = np.asarray(step)
        if steps.dtype.kind not in "iuf":
            raise TypeError(f"step must be a number or an array of numbers, got {shown(step)}")
        if steps.dtype.kind == "f":
            steps = steps.astype(np.float64)
        if steps.ndim == 0 and not isinstance(step, np.ndarray):
            alone: float = steps.item()
            return self(alone)
        # One number at a time: so the formula is written once, and an array has the same bits as
        # single numbers.
        return np.fromiter(map(self, steps.ravel().tolist()), np.float64, steps.size).reshape(
            steps.shape
        )

    def __mul__(self, other: float | StepFunction) -> Schedule:
        """Return the schedule ``self(t) * other``, or ``self(t) * other(t)``."""
        return Product(self, other) if callable(other) else self.__rmul__(other)

    def __rmul__(self, other: float | StepFunction) -> Schedule:
        """Return the schedule ``other * self(t)``, or ``other(t) * self(t)``."""
        if callable(other):
            return Product(other, self)
        return self._times(number("Product: factor", other)) if _is_real(other) else NotImplemented

    def __truediv__(self, other: float) -> Schedule:
        """Return the schedule ``self * (1 / other)``; for powers of 2 this equals the division to the bit."""
        if isinstance(other, bool) or not _is_real(other):
            return NotImplemented
        return self * rounded(operator.truediv, 1.0, float(other))

    def _times(self, factor: float) -> Schedule:
        """Return the schedule times a number that has been checked."""
        return Product(factor, self)

    def _takes_numbers_up(self) -> bool:
        """Tell whether `_times` makes something other than a `Product` of the number and this schedule."""
        return False

    def __repr__(self) -> str:
        """Return the call that makes an equal schedule."""
        texts = (f"{f.name}={getattr(self, f.name)!r}" for f in constructor_fields(self))
        return f"{type(self).__qualname__}({', '.join(texts)})"

    def __eq__(self, other: object) -> bool:
        """Tell whether `other` is of the same class with equal fields."""
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, f.name) == getattr(other, f.name) for f in fields(self))

    def __hash__(self) -> int:
        """Hash the class and the arguments."""
        return hash((type(self), *(getattr(self, f.name) for f in constructor_fields(self))))

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary of JSON types from which `from_dict` makes an equal schedule.

        Raises
        ------
        TypeError
            If this schedule, or a schedule in it, isn't of `instep.schedules`: code can't be
            stored.

        Examples
        --------
        >>> from instep.schedules import Linear
        >>> Linear(0.1, 0.2, steps=5).to_dict()
        {'schedule': 'Linear', 'init': 0.1, 'end': 0.2, 'steps': 5}
        >>> (Linear(0.1, 0.2, steps=5) * 3).to_dict()["of"] == Linear(0.1, 0.2, steps=5).to_dict()
        True
        """
        return to_dict(self)

    def plot(self, steps: int, ax: Axes | None = None) -> Axes:
        """Draw the values at steps 0 to `steps` - 1 and return the Matplotlib axes.

        Parameters
        ----------
        steps : int
            How many steps to draw, at least 1.
        ax : matplotlib.axes.Axes, optional
            The axes to draw in; those of a new figure by default.

        Raises
        ------
        ImportError
            If Matplotlib is missing; the extra ``instep[plot]`` brings it.
        ValueError, TypeError
            If `steps` is less than 1 or not an int.
        """
        t = np.arange(positive_count("plot: steps", steps))
        if ax is None:
            try:
                from matplotlib import pyplot  # noqa: PLC0415 (an extra, and slow to import)
            except ImportError as error:
                raise ImportError(missing("plot", "Matplotlib", "plot")) from error
            ax = pyplot.subplots()[1]
        ax.plot(t, self(t), label=type(self).__name__)
        ax.set_xlabel("step")
        ax.set_ylabel("value")
        return ax

    def _check(self, **checks: Callable[[str, Any], Any]) -> None:
        """Pass fields through their checks, and keep the values that the checks return."""
        for name, check in checks.items():
            self._keep(name, check(f"{type(self).__name__}: {name}", getattr(self, name)))
        Schedule.__post_init__(self)

    def _keep(self, name: str, value: object) -> None:
        """Set a field in spite of `frozen`: a checked argument, or a state."""
        object.__setattr__(self, name, value)


@documentation.without_quotes
@dataclass(frozen=True, eq=False, repr=False)
class Product(Schedule):
    """Two factors, multiplied at every step: ``f(t) = factor(t) * schedule(t)``.

    `*` makes a product, and so does `/` by a number. The numbers in a product become one number: ``a * (b * f)`` is
    ``(a * b) * f`` and ``a * Constant(b)`` is ``Constant(a * b)``, with a * b rounded once to float64. So
    ``optimizer.lr *= 0.9`` may be used in a loop.

    Parameters
    ----------
    factor : float or callable of the step
        A number, a schedule or another callable.
    schedule : schedule or callable of the step
        The other factor.

    Raises
    ------
    TypeError
        If `factor` is neither a number nor a callable, or `schedule` not a callable.
    ValueError
        If the number, or the product of numbers, isn't finite, or if schedules are nested more than
        50 levels deep.

    Examples
    --------
    >>> from instep.schedules import Linear
    >>> half = Linear(0.2, 0.4, steps=10) * 0.5
    >>> half
    0.5 * Linear(init=0.2, end=0.4, steps=10)
    >>> half(10)
    0.2
    >>> half / 4
    0.125 * Linear(init=0.2, end=0.4, steps=10)
    """

    factor: float | StepFunction
    schedule: StepFunction

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            factor=step_function if callable(self.factor) else number, schedule=step_function
        )

    def _value(self, t: float) -> float:
        factor = self.factor
        return float(factor(t) if callable(factor) else factor) * float(self.schedule(t))

    def _times(self, factor: float) -> Schedule:
        if callable(self.factor):
            return Product(factor, self)
        return Product(rounded(operator.mul, factor, self.factor), self.schedule)

    def __repr__(self) -> str:
        """Return the product as it is written with ``*``, if this expression makes an equal product."""
        inner = self.schedule
        if callable(self.factor) or (isinstance(inner, Schedule) and not inner._takes_numbers_up()):
            grouped = f"({inner!r})" if isinstance(inner, Product) else f"{inner!r}"
            return f"{self.factor!r} * {grouped}"
        return super().__repr__()

    def _takes_numbers_up(self) -> bool:
        return not callable(self.factor)


def _is_real(value: object) -> bool:
    return isinstance(value, Real)


Schedule.__module__ = "instep.schedules"  # like the schedules derived from it
