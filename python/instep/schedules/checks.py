"""The checks of the schedules' arguments, and the words of their errors.

Every check takes the argument's name for the message, and the caller's value. It returns the value
to keep, or raises TypeError (wrong kind) or ValueError (right kind, wrong value). The message is
one line; it says which argument is wrong, what it must be, and what was found.
"""

import math
from collections.abc import Callable, Iterable, Sized
from itertools import pairwise
from numbers import Real
from typing import Any

from instep._support.reals import is_real, whole
from instep._support.wording import kind, shown

LARGEST_COUNT = 2**53  # float64 holds every whole number up to here

NumberCheck = Callable[[str, Any], float]
CountCheck = Callable[[str, Any], int]


def number(name: str, value: Any) -> float:
    """Accept any finite real number."""
    if not isinstance(value, Real) or not is_real(value):
        raise TypeError(f"{name} must be a number, got {shown(value)}")
    try:
        result = float(value)
    except OverflowError:
        result = math.inf
    if not math.isfinite(result):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}")
    return result


def optional_number(name: str, value: Any) -> float | None:
    """Accept None or any finite real number."""
    return None if value is None else number(name, value)


def _number_where(expected: str, holds: Callable[[float], bool]) -> NumberCheck:
    def check(name: str, value: Any) -> float:
        result = number(name, value)
        if not holds(result):
            raise ValueError(f"{name} must be {expected}, got {result!r}")
        return result

    return check


positive = _number_where("a number > 0", lambda x: x > 0)
non_negative = _number_where("a number >= 0", lambda x: x >= 0)
one_or_growing = _number_where("1 or a number >= 1.000001", lambda x: x == 1 or x >= 1.000001)
up_to_one = _number_where("a number > 0 and <= 1", lambda x: 0 < x <= 1)
below_one = _number_where("a number >= 0 and < 1", lambda x: 0 <= x < 1)
proper_fraction = _number_where("a number > 0 and < 1", lambda x: 0 < x < 1)


def _int_from(least: int, text: str) -> CountCheck:
    def check(name: str, value: Any) -> int:
        result = whole(value)
        if result is None:
            raise TypeError(f"{name} must be an int, got {shown(value)}")
        if not least <= result <= LARGEST_COUNT:
            raise ValueError(f"{name} must be an int >= {text} and <= 2**53, got {shown(result)}")
        return result

    return check


count = _int_from(0, "0")
positive_count = _int_from(1, "1")
offset = _int_from(-LARGEST_COUNT, "-2**53")


def optional_positive_count(name: str, value: Any) -> int | None:
    """Accept None or an int of at least 1."""
    return None if value is None else positive_count(name, value)


def one_of(options: Iterable[str]) -> Callable[[str, Any], str]:
    """Make a check that accepts only these names."""
    names = tuple(options)

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be a str, got {shown(value)}")
        if value not in names:
            expected = " or ".join(map(repr, names))
            raise ValueError(f"{name} must be {expected}, got {shown(value)}")
        return value

    return check


def step_function(name: str, value: Any) -> Callable[[float], float]:
    """Accept a schedule or any other callable of the step, but not a class."""
    if isinstance(value, type) or not callable(value):
        got = kind(value) if isinstance(value, type) else shown(value)
        raise TypeError(f"{name} must be a schedule or another callable of the step, got {got}")
    function: Callable[[float], float] = value
    return function


def _each(check: Callable[[str, Any], Any]) -> Callable[[str, Any], tuple[Any, ...]]:
    def check_all(name: str, values: Any) -> tuple[Any, ...]:
        if isinstance(values, (str, bytes, dict)) or not isinstance(values, Iterable):
            raise TypeError(f"{name} must be a sequence, got {shown(values)}")
        return tuple(check(f"{name}[{i}]", value) for i, value in enumerate(values))

    return check_all


numbers = _each(number)
step_functions = _each(step_function)


def boundaries(name: str, values: Any) -> tuple[int, ...]:
    """Accept a sequence of steps, each an int of at least 1 and greater than the step before it."""
    steps = _each(positive_count)(name, values)
    for before, after in pairwise(steps):
        if after <= before:
            raise ValueError(f"{name} must increase strictly, got {after} after {before}")
    return steps


def one_more(name: str, values: Sized, bounds: Sized) -> None:
    """Refuse values unless there is one value more than there are boundaries."""
    if len(values) != len(bounds) + 1:
        raise ValueError(
            f"{name} must have {len(bounds) + 1} entries, one more than the boundaries, "
            f"got {len(values)}"
        )
