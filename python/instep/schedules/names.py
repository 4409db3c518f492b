"""The schedules by module: which there are, known before any of them is made."""

import importlib
from typing import Any

__all__ = ["MODULE_OF_CLASS", "load"]

_CLASSES = {
    "base": ("Product",),
    "composition": ("Sequential", "Warmup"),
    "constants": ("Constant", "PiecewiseConstant"),
    "cycles": ("CosineRestarts", "Cyclic", "OneCycle"),
    "decays": ("ExponentialDecay", "InverseSqrtDecay", "InverseTimeDecay", "SqrtDecay"),
    "plateau": ("ReduceOnPlateau",),
    "ramps": ("CosineDecay", "Linear", "PolynomialDecay", "WarmupStableDecay"),
}
#: What `from_dict` may make, and the module that has it.
MODULE_OF_CLASS = {name: module for module, names in _CLASSES.items() for name in names}


def load(name: str, module: str) -> Any:
    """Return what a module of this package has under a name, importing it on first use.

    Making all these dataclasses would double the time that ``import instep`` takes.
    """
    return getattr(importlib.import_module(f"instep.schedules.{module}"), name)
