"""The names of the schedules and their modules, known before any class is made."""

import importlib
from typing import Any

__all__ = ["MODULE_OF_CLASS", "load"]

_CLASSES = {
    "averages": ("HalfLife", "UniformAverage"),
    "base": ("Product",),
    "composition": ("Sequential", "Shifted", "Warmup"),
    "constants": ("Constant", "PiecewiseConstant"),
    "cycles": ("CosineRestarts", "Cyclic", "OneCycle"),
    "decays": ("ExponentialDecay", "InverseSqrtDecay", "InverseTimeDecay", "SqrtDecay"),
    "plateau": ("ReduceOnPlateau",),
    "ramps": ("CosineDecay", "Linear", "PiecewiseLinear", "PolynomialDecay", "WarmupStableDecay"),
}
#: The classes that `from_dict` may make, and the module of each.
MODULE_OF_CLASS = {name: module for module, names in _CLASSES.items() for name in names}


def load(name: str, module: str) -> Any:
    """Return the object that a module of this package has under a name; import the module on first use.

    Making all these dataclasses at once would double the time that ``import instep`` takes.
    """
    return getattr(importlib.import_module(f"instep.schedules.{module}"), name)
