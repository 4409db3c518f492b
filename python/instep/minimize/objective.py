"""The function to minimize, and its gradient: calls, results checked, evaluations counted."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from instep._support.reals import is_real
from instep._support.wording import described, kind, shown
from instep.minimize.arguments import refuse_masked
from instep.minimize.host import optimize
from instep.optimizers.containers import Array

__all__ = ["Objective", "Value"]


class Value(NamedTuple):
    """The function and its gradient at one point, and the evaluations that this took.

    The gradient is a copy: the caller's function may write the next one into the same memory, also if
    the callback calls it before the step.
    """

    fun: float
    jac: Array
    nfev: int
    njev: int


class Objective:
    """The caller's functions. Each call gets a copy of x, which the caller may keep or change."""

    def __init__(self, fun: Any, jac: Any, args: tuple[Any, ...]) -> None:
        if not callable(fun):
            raise TypeError(f"fun must be a function, got {kind(fun)}")
        self._fun: Callable[..., Any] = fun
        self._args = args
        self._at: Callable[[Array], Value]
        if callable(jac):
            self._jac: Callable[..., Any] = jac
            self._at = self._by_function
        elif jac is True:
            self._at = self._by_pair
        elif jac is None or jac is False or (isinstance(jac, str) and jac == "2-point"):
            self._at = self._by_differences
        else:
            raise ValueError(
                f"jac must be a function, True (fun returns the gradient, too), '2-point' or None, got "
                f"{shown(jac)}"
            )

    def at(self, x: Array) -> Value:
        """Evaluate the function and its gradient."""
        return self._at(x)

    def _by_function(self, x: Array) -> Value:
        fun = _number(self._fun(x.copy(), *self._args))
        return Value(fun, _gradient("jac", self._jac(x.copy(), *self._args), x), 1, 1)

    def _by_pair(self, x: Array) -> Value:
        both = self._fun(x.copy(), *self._args)
        if not isinstance(both, (tuple, list)) or len(both) != 2:
            raise TypeError(
                f"fun must return a number and its gradient with jac=True, got {described(both)}"
            )
        return Value(_number(both[0]), _gradient("fun", both[1], x), 1, 1)

    def _by_differences(self, x: Array) -> Value:
        wide = x.astype(np.float64)  # as SciPy computes them, with steps that float32 would lose
        fun = _number(self._fun(wide.copy(), *self._args))
        if not math.isfinite(fun):  # the run ends here
            return Value(fun, np.full_like(wide, math.nan), 1, 0)
        nfev = 1

        def counted(place: Array) -> float:
            nonlocal nfev
            if np.array_equal(place, wide):  # what SciPy asks for first is known
                return fun
            nfev += 1
            return _number(self._fun(place, *self._args))

        jac = optimize.approx_fprime(wide, counted)
        return Value(fun, np.asarray(jac), nfev, 1)


def _number(value: Any) -> float:
    """Return what fun returned; like SciPy, also from an array of one element."""
    number = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    if not is_real(number) or np.ma.is_masked(value):
        raise TypeError(f"fun must return one real number, got {kind(value)}{_shape(value)}")
    try:
        return float(number)
    except OverflowError:  # of an int, where a float has an infinity
        return math.inf if number > 0 else -math.inf


def _gradient(who: str, value: Any, x: Array) -> Array:
    """Return a copy of a gradient, as an array that an optimizer steps with."""
    refuse_masked(f"the gradient that {who} returns", value)
    try:
        found = np.asarray(value)
    except ValueError as error:
        raise ValueError(
            f"{who} must return a gradient of shape {x.shape}, like x0, got {kind(value)}, of which NumPy "
            f"makes none: {error}"
        ) from error
    if found.ndim == 0 and x.size == 1:
        found = found.reshape(1)
    if found.shape != x.shape:
        raise ValueError(
            f"{who} must return a gradient of shape {x.shape}, like x0, got {kind(value)} of shape {found.shape}"
        )
    if found.dtype.kind not in "fiu":
        raise TypeError(
            f"{who} must return a gradient of real numbers, got {kind(value)} of dtype {found.dtype}"
        )
    is_taken = found.dtype in (np.float64, np.float32, np.float16) and found.dtype.isnative
    return found.astype(found.dtype if is_taken else np.float64, order="C")


def _shape(value: Any) -> str:
    return f" of shape {value.shape}" if isinstance(value, np.ndarray) else ""
