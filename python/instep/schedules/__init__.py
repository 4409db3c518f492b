"""Schedules: hyperparameters that change with the number of completed steps.

A schedule is a pure function of the step, in closed form. Called with a number it returns a float;
called with an array it returns a float64 array of the same shape. A resumed run needs only its step
count to continue exactly. Only `ReduceOnPlateau` has a state. Schedules are frozen dataclasses.
`Warmup`, `Sequential`, `Shifted`, `*` (and `/` by a number) compose schedules, and any other callables of the
step; `StepFunction` is the type of all such callables. Step decay is `ExponentialDecay` with
``staircase=True``, or `PiecewiseConstant` for your own values and boundaries.

>>> from instep.schedules import CosineDecay, Warmup
>>> lr = Warmup(CosineDecay(1e-3, steps=10_000), steps=500)
>>> lr(0), lr(250), lr(500), lr(10_500)
(0.0, 0.0005, 0.001, 0.0)
"""

from typing import TYPE_CHECKING

from instep.schedules.names import MODULE_OF_CLASS, load

if TYPE_CHECKING:
    from instep.schedules.averages import HalfLife, UniformAverage
    from instep.schedules.base import Product, Schedule, StepFunction
    from instep.schedules.composition import Sequential, Shifted, Warmup
    from instep.schedules.constants import Constant, PiecewiseConstant
    from instep.schedules.cycles import CosineRestarts, Cyclic, OneCycle
    from instep.schedules.decays import (
        ExponentialDecay,
        InverseSqrtDecay,
        InverseTimeDecay,
        SqrtDecay,
    )
    from instep.schedules.plateau import ReduceOnPlateau
    from instep.schedules.ramps import (
        CosineDecay,
        Linear,
        PiecewiseLinear,
        PolynomialDecay,
        WarmupStableDecay,
    )
    from instep.schedules.reading import from_dict

# The module of every public name.
_MODULE_OF = {
    **MODULE_OF_CLASS,
    "Schedule": "base",
    "StepFunction": "base",
    "from_dict": "reading",
}

if not TYPE_CHECKING:  # type checkers would believe that every name is there

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'instep.schedules' has no attribute {name!r}")
        value = load(name, _MODULE_OF[name])
        globals()[name] = value  # from now on it is found without this function
        return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Constant",
    "CosineDecay",
    "CosineRestarts",
    "Cyclic",
    "ExponentialDecay",
    "HalfLife",
    "InverseSqrtDecay",
    "InverseTimeDecay",
    "Linear",
    "OneCycle",
    "PiecewiseConstant",
    "PiecewiseLinear",
    "PolynomialDecay",
    "Product",
    "ReduceOnPlateau",
    "Schedule",
    "Sequential",
    "Shifted",
    "SqrtDecay",
    "StepFunction",
    "UniformAverage",
    "Warmup",
    "WarmupStableDecay",
    "from_dict",
]
