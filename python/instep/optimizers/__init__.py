"""What every optimizer is made of: containers, groups, hyperparameters, states, and the loss scaler."""

from instep.optimizers.base import Optimizer
from instep.optimizers.combined import Combined
from instep.optimizers.groups import ParamGroup

# Here, since a Ctrl-C in an import leaves half a module: the core must find it in the middle of a step.
from instep.optimizers.newton_schulz import NewtonSchulz

__all__ = ["Combined", "NewtonSchulz", "Optimizer", "ParamGroup"]
