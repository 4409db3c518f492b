"""The optimizers. Each class documents its formula; docs/semantics.md has all of them, to the operation."""

import importlib
from typing import TYPE_CHECKING

from instep.optimizers.adam import Adam, AdamW
from instep.optimizers.base import Optimizer
from instep.optimizers.groups import ParamGroup
from instep.optimizers.rmsprop import RMSprop
from instep.optimizers.sgd import SGD, Momentum

if TYPE_CHECKING:
    from instep.optimizers import state as state
else:

    def __getattr__(name: str) -> object:
        if name == "state":  # on first use: it brings the schedules
            return importlib.import_module("instep.optimizers.state")
        raise AttributeError(f"module 'instep.optimizers' has no attribute {name!r}")


__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "ParamGroup", "RMSprop"]
