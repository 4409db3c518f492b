"""What hyperparameters may be: numbers in an interval, or callables of the step that give such numbers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

__all__ = ["Interval", "Number", "as_float", "check_flag", "check_number", "check_pair"]

#: A number, or a callable from the number of completed steps (0 at the first step) to one.
Number: TypeAlias = "float | Callable[[int], float]"

Settings: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class Interval:
    """The values a hyperparameter may take, ends included unless open."""

    low: float = 0.0
    high: float = math.inf
    low_open: bool = False
    high_open: bool = False
    finite: bool = True

    def __contains__(self, value: float) -> bool:
        if math.isnan(value) or (self.finite and math.isinf(value)):
            return False
        above = value > self.low if self.low_open else value >= self.low
        return above and (value < self.high if self.high_open else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            kind = "a finite number" if self.finite else "a number"
            return f"{kind} {'greater than' if self.low_open else 'of at least'} {self.low:g}"
        left, right = "(" if self.low_open else "[", ")" if self.high_open else "]"
        return f"a number in {left}{self.low:g}, {self.high:g}{right}"


def as_float(value: object, interval: Interval, who: str) -> float:
    """Return value as a float in the interval, or raise in the name of who."""
    if (
        isinstance(value, (bool, str, bytes, complex, np.complexfloating))
        or not hasattr(value, "__float__")
        or getattr(value, "ndim", 0) != 0
    ):
        raise TypeError(f"{who} is {value!r}; {interval} is wanted")
    try:
        number = float(value)
    except TypeError:
        raise TypeError(f"{who} is {value!r}; {interval} is wanted") from None
    except OverflowError:
        raise ValueError(f"{who} is larger than any float; {interval} is wanted") from None
    if number not in interval:
        raise ValueError(f"{who} is {number!r}; {interval} is wanted")
    return number


def check_number(name: str, value: Any, interval: Interval) -> Number:
    """Return a hyperparameter as given by the user: a checked float, or the callable itself."""
    return value if callable(value) else as_float(value, interval, name)


def check_pair(name: str, value: Any, interval: Interval) -> tuple[Number, Number]:
    """Return a hyperparameter that is a pair, such as betas."""
    try:
        first, second = value
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; a pair, each {interval}, is wanted") from None
    return check_number(f"{name}[0]", first, interval), check_number(f"{name}[1]", second, interval)


def check_flag(name: str, value: Any) -> bool:
    """Return a hyperparameter that is on or off."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; True or False is wanted")
    return value
