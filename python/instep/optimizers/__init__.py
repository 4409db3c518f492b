"""What every optimizer is made of: containers, groups, hyperparameters, states, and the loss scaler."""

from instep.optimizers.base import Optimizer
from instep.optimizers.combined import Combined
from instep.optimizers.groups import ParamGroup

__all__ = ["Combined", "Optimizer", "ParamGroup"]
