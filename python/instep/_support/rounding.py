"""Python's arithmetic for a step: rounded to nearest, in any rounding mode of the program."""

from __future__ import annotations

from collections.abc import Callable

from instep import _core

__all__ = ["rounded"]


def rounded(operation: Callable[[float, float], float], a: float, b: float) -> float:
    """Return the result of an operation of two numbers, rounded to nearest."""
    return _core.in_default_environment(operation, a, b)
