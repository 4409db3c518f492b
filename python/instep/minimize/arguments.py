"""The arguments that SciPy gives to a method, checked."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from types import FrameType
from typing import Any

import numpy as np

from instep._support.reals import is_real, whole
from instep._support.wording import kind, shown
from instep.minimize.host import optimize
from instep.optimizers.containers import Array
from instep.optimizers.near_misses import hint

__all__ = [
    "REFUSED",
    "at_least_0",
    "called_back",
    "count",
    "ignore_hessians",
    "refuse_limits",
    "refuse_masked",
    "refuse_options",
    "start",
    "tuple_of",
    "warn_of_unknown",
]

# Arguments of every rule that a method can't have.
REFUSED = {
    "maximize": "pass a function that returns -fun",
    "nonfinite": "a run ends if fun or its gradient is not finite",
    "copy_to": "there is one array of parameters, which the result has",
    "master_bits": "no parameter is bfloat16",
    "param_rounding": "no parameter is narrower than its arithmetic",
    "state_storage": "fun and its gradient need the memory of the states, too",
}


def start(x0: Any) -> Array:
    """Return the caller's x0 as a vector that may be changed: a copy, of float32 or else of float64."""
    refuse_masked("x0", x0)
    given = np.asarray(x0)
    if given.dtype.kind not in "fiu":
        raise TypeError(
            f"x0 must be an array of real numbers, got {kind(x0)} of dtype {given.dtype}"
        )
    if given.ndim > 1:
        raise ValueError(
            f"x0 must have one dimension, got shape {given.shape}; pass x0.ravel(), and reshape x in fun"
        )
    if given.size == 0:
        raise ValueError("x0 must have at least one element, got none")
    dtype = np.float32 if given.dtype.type is np.float32 else np.float64
    return np.array(given, dtype, ndmin=1)


def refuse_masked(who: str, value: Any) -> None:
    """Raise TypeError for a masked array, whose mask every step would ignore."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(
            f"{who} must be a plain array, got {kind(value)}; pass its filled(), with a value of your choice"
        )


def tuple_of(args: Any) -> tuple[Any, ...]:
    """Return further arguments of fun; SciPy takes one without a tuple, too."""
    return args if isinstance(args, tuple) else (args,)


def count(who: str, value: Any) -> int:
    """Return a number of steps; raise TypeError or ValueError for anything else."""
    number = whole(value)
    if number is None:
        raise TypeError(f"{who} must be an int of at least 0, got {shown(value)}")
    if number < 0:
        raise ValueError(f"{who} must be at least 0, got {number}")
    return number


def at_least_0(who: str, value: Any) -> float:
    """Return a number that may be infinite; raise TypeError or ValueError for anything else."""
    if not is_real(value):
        raise TypeError(f"{who} must be a number of at least 0, got {shown(value)}")
    number = float(value)
    if not number >= 0.0:
        raise ValueError(f"{who} must be a number of at least 0, got {shown(value)}")
    return number


def refuse_limits(method: str, bounds: Any, constraints: Any) -> None:
    """Raise ValueError for bounds and constraints; SciPy passes empty ones, too."""
    if bounds is not None and not _limit_nothing(bounds):
        raise ValueError(
            f"bounds must be None for {method}, got {kind(bounds)}; use method='L-BFGS-B', or write x in "
            "fun as a function of numbers without bounds"
        )
    if constraints is not None and not _is_empty(constraints):
        raise ValueError(
            f"constraints must be empty for {method}, got {kind(constraints)}; use method='SLSQP' or "
            "'trust-constr', or add a penalty to fun"
        )


def _is_empty(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict)) and len(value) == 0


def _limit_nothing(bounds: Any) -> bool:
    """Tell whether bounds have no limit in them, such as ``[(None, None)] * n``."""
    if isinstance(bounds, optimize.Bounds):
        return bool(np.all(np.isneginf(bounds.lb)) and np.all(np.isposinf(bounds.ub)))
    try:
        return all(low in (None, -np.inf) and high in (None, np.inf) for low, high in bounds)
    except (TypeError, ValueError):  # no pairs of numbers
        return False


def ignore_hessians(method: str, hess: Any, hessp: Any) -> None:
    """Warn of second derivatives, in SciPy's words."""
    for value, what in (
        (hess, "Hessian information (hess)"),
        (hessp, "Hessian-vector product information (hessp)"),
    ):
        if value is not None:
            _warn(f"Method {method} does not use {what}.", RuntimeWarning)


def refuse_options(method: str, options: Mapping[str, Any]) -> None:
    """Raise ValueError for arguments that the rule has, and the method can't have."""
    for name, why in REFUSED.items():
        if name in options:
            raise ValueError(
                f"{name} must be left out for {method}, got {shown(options[name])}; {why}"
            )


def warn_of_unknown(options: Iterable[str], known: Collection[str]) -> None:
    """Warn of options that no argument has, in SciPy's words, as SciPy's own methods do."""
    if unknown := list(options):
        text = f"Unknown solver options: {', '.join(unknown)}"
        direct = unknown[0] == "options"  # of a direct call, which takes them as keywords
        mend = "; pass **options, as keywords" if direct else hint(unknown[0], known)
        _warn(text + mend, optimize.OptimizeWarning)


def called_back(callback: Any) -> Callable[[Any], object] | None:
    """Return a function of an OptimizeResult that calls the caller's function by the one of SciPy's two signatures."""
    if callback is None:
        return None
    if not callable(callback):
        raise TypeError(f"callback must be a function or None, got {kind(callback)}")
    try:
        names = set(inspect.signature(callback).parameters)
    except (TypeError, ValueError):  # of a function in C that doesn't tell, or of a strange object
        names = set()
    if names == {"intermediate_result"}:
        return lambda result: callback(intermediate_result=result)
    return lambda result: callback(result.x)


def _warn(text: str, category: type[Warning]) -> None:
    """Warn at the line that called SciPy, or the method."""
    level, frame = 1, sys._getframe()
    while _is_inside(frame) and frame.f_back is not None:
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)


def _is_inside(frame: FrameType) -> bool:
    name = f"{frame.f_globals.get('__name__', '')}."
    return name.startswith(("instep.minimize.", "scipy."))
