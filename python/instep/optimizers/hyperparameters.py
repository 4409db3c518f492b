"""The values of hyperparameters: numbers in an interval, or callables of the step that return such numbers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Generic,
    Literal,
    Protocol,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from instep._support.checks import flag, word
from instep._support.reals import is_real, whole
from instep._support.wording import kind, shown

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "Constant",
    "ConstantFirst",
    "Count",
    "Flag",
    "GroupsDifferError",
    "Hyperparameter",
    "InInterval",
    "Interval",
    "Nonfinite",
    "Number",
    "Numeric",
    "NumericOrNone",
    "NumericPair",
    "NumericTriple",
    "OneOf",
    "Schedule",
    "as_float",
    "check_number",
    "check_number_or_none",
    "of_all_groups",
    "value_at",
]

#: A callable from the number of completed steps (0 at the first step) to a number.
Schedule: TypeAlias = Callable[[int], float]
#: A number, or a schedule of one.
Number: TypeAlias = float | Schedule
#: The choices for gradients that are infinite or NaN, in the core's order.
Nonfinite: TypeAlias = Literal["propagate", "skip", "raise"]

Value = TypeVar("Value")


class HasGroups(Protocol):
    """An object with hyperparameters in groups, which can set one in all groups."""

    def _of_groups(self) -> Sequence[Mapping[str, Any]]:
        """The hyperparameters of each group, all of one moment."""

    def _set_in_all_groups(self, name: str, value: Any) -> None: ...


class Interval:
    """The values a hyperparameter may take, ends included unless open."""

    # Not a dataclass: to make one takes more than a millisecond when instep is imported. Don't change an Interval:
    # optimizers share it.
    __slots__ = ("finite", "high", "high_open", "low", "low_open")

    def __init__(
        self,
        low: float = 0.0,
        high: float = math.inf,
        *,
        low_open: bool = False,
        high_open: bool = False,
        finite: bool = True,
    ) -> None:
        self.low, self.high = low, high
        self.low_open, self.high_open = low_open, high_open
        self.finite = finite

    def __contains__(self, value: float) -> bool:
        if math.isnan(value) or (self.finite and math.isinf(value)):
            return False
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            any_number = "a finite number" if self.finite else "a number"
            return f"{any_number} {'greater than' if self.low_open else 'of at least'} {self.low:g}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"a number in {left}{self.low:g}, {self.high:g}{right}"


def as_float(value: object, interval: Interval, who: str) -> float:
    """Return value as a float in the interval; errors name `who`."""
    if type(value) is float and value in interval:  # in a host's loop this is asked at every step
        return value
    if not is_real(value):
        raise TypeError(f"{who} must be {interval}, got {shown(value)}")
    number_like: Any = value
    try:
        number = float(number_like)
    except TypeError:
        raise TypeError(f"{who} must be {interval}, got {shown(value)}") from None
    except OverflowError:
        raise ValueError(
            f"{who} must be {interval}, got {kind(value)} larger than any float"
        ) from None
    if number not in interval:
        raise ValueError(f"{who} must be {interval}, got {number!r}")
    return number


def check_number(name: str, value: Any, interval: Interval) -> Number:
    """Return a hyperparameter as given by the user: a checked float, or the callable itself."""
    if isinstance(value, type):  # it could be called, but makes a schedule instead of a number
        raise TypeError(
            f"{name} must be {interval} or a callable of the step, got {kind(value)}; "
            f"pass {value.__name__}(...)"
        )
    return value if callable(value) else as_float(value, interval, name)


def check_number_or_none(name: str, value: Any, interval: Interval) -> Number | None:
    """Check a hyperparameter that is off if it is None."""
    return None if value is None else check_number(name, value, interval)


def value_at(name: str, schedule: Callable[[int], float], interval: Interval, step: int) -> float:
    """Return a schedule's number for a step, checked; a note on the schedule's errors names the schedule."""
    try:
        value = schedule(step)
    except Exception as error:
        with suppress(Exception):  # an error that can't have a note is raised all the same
            _add_note(error, f"raised by the schedule of {name} at step {step}")
        raise
    if type(value) is float and value in interval:
        return value
    return as_float(value, interval, f"the schedule of {name} at step {step}")


def _add_note(error: Exception, note: str) -> None:
    """As ``error.add_note``, which Python 3.10 lacks; pytest and IPython show such notes there, too."""
    notes = vars(error).setdefault("__notes__", [])
    if isinstance(notes, list):  # always, unless a program has set it to something else
        notes.append(note)


class GroupsDifferError(AttributeError, ValueError):
    """A hyperparameter has no single value to read, since the groups differ.

    It is an AttributeError, so that ``hasattr(optimizer, "lr")`` is False, ``getattr`` returns its
    default, and tools that read all attributes don't stop. It is a ValueError, since the name is
    right. NumPy's AxisError has two bases, too.
    """


def of_all_groups(name: str, values: Sequence[Any], each: str) -> Any:
    """Return the value that all groups have; raise GroupsDifferError, with the way to read each, if they differ."""
    first = values[0]
    for other in values[1:]:
        if other != first:
            raise GroupsDifferError(
                f"{name} must be the same in all groups to be read here, got {shown(first)} and "
                f"{shown(other)}; read {each}"
            )
    return first


class Hyperparameter(ABC, Generic[Value]):
    """The kind of a hyperparameter; as an attribute of an optimizer, the value in all groups.

    Reading it raises `GroupsDifferError` if the groups differ. Setting it sets it for all groups;
    if one group refuses the value, for none.
    """

    _name = ""
    # What it means if a stored state lacks this hyperparameter; such a value is not stored, so that the states of a
    # version without it are the same.
    absent: Any = NotImplemented

    def absent_as(self, value: Value) -> Self:
        """Say what it means if a stored state lacks this hyperparameter, which came with a later version."""
        self.absent = value
        return self

    @abstractmethod
    def check(self, name: str, value: Any) -> Value:
        """Return the value to keep, or raise TypeError or ValueError with this name."""

    is_fixed: ClassVar[bool] = (
        False  # whether a part of the value, or all of it, can't be changed later
    )

    def fixed(self, value: Any) -> Any:
        """Return the part of a value that can't be changed later; None if all can."""
        return None

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name
        self.__doc__ = f"{name} of all groups, to read and set."

    @overload
    def __get__(self, optimizer: None, owner: type) -> Self: ...

    @overload
    def __get__(self, optimizer: HasGroups, owner: type) -> Value: ...

    def __get__(self, optimizer: HasGroups | None, owner: type) -> Any:
        if optimizer is None:
            return self
        values = [settings[self._name] for settings in optimizer._of_groups()]
        return of_all_groups(self._name, values, f"param_groups[k]['{self._name}']")

    def __set__(self, optimizer: HasGroups, value: Value) -> None:
        optimizer._set_in_all_groups(self._name, value)


class InInterval(Hyperparameter[Value]):
    """A hyperparameter of one or more numbers in an interval; each may be a schedule."""

    def __init__(self, interval: Interval) -> None:
        self.interval = interval

    def interval_of(self, index: int) -> Interval:
        """Return the interval of one of its numbers."""
        return self.interval


class Numeric(InInterval[Number]):
    """A number."""

    def check(self, name: str, value: Any) -> Number:
        """Accept a number in the interval, or any callable."""
        return check_number(name, value, self.interval)


class Constant(Numeric):
    """A number that is no schedule, and that can't be changed later."""

    is_fixed = True

    def check(self, name: str, value: Any) -> float:
        """Accept a number in the interval."""
        return as_float(value, self.interval, name)

    def fixed(self, value: Any) -> Any:
        """Return the number."""
        return value


class Count(InInterval[int]):
    """A whole number, never a schedule."""

    def check(self, name: str, value: Any) -> int:
        """Accept an int in the interval."""
        number = whole(value)
        if number is None:
            raise TypeError(f"{name} must be an int, {self.interval}, got {shown(value)}")
        return int(as_float(number, self.interval, name))


class NumericOrNone(InInterval["Number | None"]):
    """A number, or None."""

    def check(self, name: str, value: Any) -> Number | None:
        """Accept None, a number in the interval, or any callable."""
        return check_number_or_none(name, value, self.interval)


class NumericTuple(InInterval[Value]):
    """Several numbers; each has an interval of its own if several intervals are given."""

    _count: ClassVar[int]
    _called: ClassVar[str]

    def __init__(self, *intervals: Interval) -> None:
        super().__init__(intervals[0])
        self.intervals = intervals if len(intervals) > 1 else intervals * self._count

    def interval_of(self, index: int) -> Interval:
        """Return the interval of one of the numbers."""
        return self.intervals[index]

    def check(self, name: str, value: Any) -> Value:
        """Accept so many numbers in their intervals, or any callables."""
        try:
            parts = tuple(value)
        except TypeError:
            parts = ()
        if len(parts) != self._count or isinstance(value, str):
            each = dict.fromkeys(map(str, self.intervals))
            allowed = f"each {self.interval}" if len(each) == 1 else " and ".join(each)
            raise TypeError(f"{name} must be {self._called}, {allowed}, got {shown(value)}")
        checked: Any = tuple(
            check_number(f"{name}[{k}]", part, self.intervals[k]) for k, part in enumerate(parts)
        )
        return cast("Value", checked)


class NumericPair(NumericTuple["tuple[Number, Number]"]):
    """Two numbers."""

    _count, _called = 2, "a pair"


class ConstantFirst(NumericPair):
    """Two numbers, of which the first is no schedule and can't be changed later."""

    is_fixed = True

    def check(self, name: str, value: Any) -> tuple[Number, Number]:
        """Accept a number in its interval, and a number in its own or any callable."""
        first, second = super().check(name, value)
        return as_float(first, self.intervals[0], f"{name}[0]"), second

    def fixed(self, value: Any) -> Any:
        """Return the first number."""
        return value[0]


class NumericTriple(NumericTuple["tuple[Number, Number, Number]"]):
    """Three numbers."""

    _count, _called = 3, "three numbers"


class OneOf(Hyperparameter[str]):
    """One of two words; with the second, the option of the core that has this name is on."""

    def __init__(self, first: str, second: str) -> None:
        self.words = first, second

    def check(self, name: str, value: Any) -> str:
        """Accept one of the words."""
        return word(name, value, self.words)


class Flag(Hyperparameter[bool]):
    """On or off."""

    def check(self, name: str, value: Any) -> bool:
        """Accept True or False."""
        return flag(name, value)
