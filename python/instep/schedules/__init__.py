"""Schedules: hyperparameters that change with the number of completed steps.

A schedule is a pure function of the step, in closed form: called with a number it returns a float,
called with an array it returns a float64 array of that shape, and a resumed run needs nothing but
its step count to go on exactly. `ReduceOnPlateau` alone has a state. Schedules are frozen
dataclasses; they compose with `Warmup`, `Sequential` and `*` (and `/` by a number), also with any
other callable of the step.

>>> from instep.schedules import CosineDecay, Warmup
>>> lr = Warmup(CosineDecay(1e-3, steps=10_000), steps=500)
>>> lr(0), lr(250), lr(500), lr(10_500)
(0.0, 0.0005, 0.001, 0.0)
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instep.schedules.base import Schedule, StepFunction
    from instep.schedules.composition import Product, Sequential, Warmup
    from instep.schedules.constants import Constant, PiecewiseConstant
    from instep.schedules.cycles import CosineRestarts, Cyclic, OneCycle
    from instep.schedules.decays import (
        ExponentialDecay,
        InverseSqrtDecay,
        InverseTimeDecay,
        SqrtDecay,
    )
    from instep.schedules.plateau import ReduceOnPlateau
    from instep.schedules.ramps import CosineDecay, Linear, PolynomialDecay, WarmupStableDecay
    from instep.schedules.serialisation import from_dict

# The schedules by module: what `from_dict` may make.
_CLASSES = {
    "composition": ("Product", "Sequential", "Warmup"),
    "constants": ("Constant", "PiecewiseConstant"),
    "cycles": ("CosineRestarts", "Cyclic", "OneCycle"),
    "decays": ("ExponentialDecay", "InverseSqrtDecay", "InverseTimeDecay", "SqrtDecay"),
    "plateau": ("ReduceOnPlateau",),
    "ramps": ("CosineDecay", "Linear", "PolynomialDecay", "WarmupStableDecay"),
}
_MODULE_OF_CLASS = {name: module for module, names in _CLASSES.items() for name in names}
# Which module has what is imported on first use: making all these dataclasses would double the time that
# ``import instep`` takes.
_MODULE_OF = {
    **_MODULE_OF_CLASS,
    "Schedule": "base",
    "StepFunction": "base",
    "from_dict": "serialisation",
}

if not TYPE_CHECKING:  # for which every name would be there

    def __getattr__(name: str) -> object:
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'instep.schedules' has no attribute {name!r}")
        value = getattr(importlib.import_module(f"instep.schedules.{_MODULE_OF[name]}"), name)
        globals()[name] = value  # from now on found without this function
        return value


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "Constant",
    "CosineDecay",
    "CosineRestarts",
    "Cyclic",
    "ExponentialDecay",
    "InverseSqrtDecay",
    "InverseTimeDecay",
    "Linear",
    "OneCycle",
    "PiecewiseConstant",
    "PolynomialDecay",
    "Product",
    "ReduceOnPlateau",
    "Schedule",
    "Sequential",
    "SqrtDecay",
    "StepFunction",
    "Warmup",
    "WarmupStableDecay",
    "from_dict",
]
