"""The optimizers. Each class documents its formula; docs/semantics.md has all of them, to the operation."""

from instep.optimizers.adam import Adam, AdamW
from instep.optimizers.base import Optimizer
from instep.optimizers.groups import ParamGroup
from instep.optimizers.rmsprop import RMSprop
from instep.optimizers.sgd import SGD, Momentum

__all__ = ["SGD", "Adam", "AdamW", "Momentum", "Optimizer", "ParamGroup", "RMSprop"]
