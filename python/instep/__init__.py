"""Optimizer steps on NumPy arrays: in place, fused into one sweep over memory, exact to the bit.

>>> import numpy as np, instep
>>> weights = np.array([1.0, -2.0, 3.0])
>>> optimizer = instep.Adam(weights, lr=0.1)
>>> for _ in range(200):
...     optimizer.step(2 * weights)        # the gradient of the sum of squares
>>> bool(np.all(np.abs(weights) < 0.01))
True

These classes change arrays in place: `SGD`, `Momentum`, `Adam`, `AdamW`, `Adamax`, `NAdam`, `RAdam`,
`AdaBelief`, `Yogi`, `ADOPT`, `AdEMAMix`, `Adan`, `Lion`, `Signum`, `RMSprop`, `Adagrad`, `Adadelta`, `Rprop`, `ASGD`,
`FTRL`, `ScheduleFreeSGD`, `ScheduleFreeAdamW`, `LAMB`, `LARS`, `Prodigy` and, for matrices, `Muon`.
`Optimizer` describes the arguments of all of them. `instep.schedules` has learning rates that change
with the step.
`Combined` steps several optimizers as one. `LossScaler` is for float16 gradients, `Steps` for
libraries that keep parameters and states themselves. `instep.checkpoint` saves and loads a run.
`instep.interop` converts states to and from the form of ``torch.optim``; `instep.storage` has
the formats of 8-bit states, and conversions between formats. `instep.torch`,
`instep.sklearn`, `instep.thinc` and `instep.minimize` take the steps in the loops of PyTorch,
scikit-learn, thinc (spaCy) and SciPy. `instep.mpi` takes the step of several processes together.
`instep.typing` has names for annotations. `set_num_threads` and `set_isa` limit what steps use of
this machine; `config` shows what they use. ``instep --help`` lists the commands.
"""

import importlib
from typing import TYPE_CHECKING

from instep.machine import interpreter, openmp

interpreter.check()  # before anything imports NumPy
_how_idle_threads_wait = openmp.load()  # before anything else imports the core

from instep import schedules  # noqa: E402
from instep._core import __version__  # noqa: E402
from instep._support.public import publish  # noqa: E402
from instep.machine import configuration, isa, threads  # noqa: E402
from instep.machine.configuration import config  # noqa: E402
from instep.machine.isa import isa_levels, set_isa  # noqa: E402
from instep.machine.threads import get_num_threads, num_threads, set_num_threads  # noqa: E402
from instep.optimizers import Combined, Optimizer  # noqa: E402
from instep.optimizers.loss_scaler import LossScaler  # noqa: E402
from instep.optimizers.steps import Steps  # noqa: E402
from instep.rules import (  # noqa: E402
    ADOPT,
    ASGD,
    FTRL,
    LAMB,
    LARS,
    SGD,
    AdaBelief,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Adan,
    AdEMAMix,
    Lion,
    Momentum,
    Muon,
    NAdam,
    Prodigy,
    RAdam,
    RMSprop,
    Rprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    Signum,
    Yogi,
)

# For the training loops of other libraries. They are not in __all__, as `import *` would import these libraries.
_FACES = ("minimize", "mpi", "sklearn", "thinc", "torch")

if TYPE_CHECKING:
    from instep import checkpoint, interop, storage, typing
else:  # hidden from type checkers, for which every name would be there

    def __getattr__(name: str) -> object:
        # On first use: a step needs none of them, and a face needs its library.
        if name in ("checkpoint", "interop", "storage", "typing", *_FACES):
            return importlib.import_module(f"instep.{name}")
        hint = "; use ml_dtypes.bfloat16, or state_dtype='bfloat16'" if name == "bfloat16" else ""
        raise AttributeError(f"module 'instep' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return __all__


__all__ = [
    "ADOPT",
    "ASGD",
    "FTRL",
    "LAMB",
    "LARS",
    "SGD",
    "AdEMAMix",
    "AdaBelief",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Adan",
    "Combined",
    "Lion",
    "LossScaler",
    "Momentum",
    "Muon",
    "NAdam",
    "Optimizer",
    "Prodigy",
    "RAdam",
    "RMSprop",
    "Rprop",
    "ScheduleFreeAdamW",
    "ScheduleFreeSGD",
    "Signum",
    "Steps",
    "Yogi",
    "__version__",
    "checkpoint",
    "config",
    "get_num_threads",
    "interop",
    "isa_levels",
    "num_threads",
    "schedules",
    "set_isa",
    "set_num_threads",
    "storage",
    "typing",
]

publish(__name__, [name for name in __all__ if name in globals()], globals())
configuration.set_idle_threads(_how_idle_threads_wait)
isa.start()
threads.start()
