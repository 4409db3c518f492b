"""What the face needs of scikit-learn, none of it public there."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

from instep._support import hosts

__all__ = ["AdamOptimizer", "Perceptron", "SGDOptimizer", "perceptrons", "sklearn"]

_FACE = "instep.sklearn"
_TESTED = "1.2 to 1.9"
_METHODS = ("update_params", "iteration_ends", "trigger_stopping")

sklearn = hosts.host(_FACE, "sklearn", "scikit-learn", "sklearn")
importlib.import_module("sklearn.neural_network")


def _part(path: str) -> Any:
    return hosts.part(_FACE, sklearn, f"neural_network.{path}", _TESTED)


def _class(name: str) -> Any:
    """Return scikit-learn's class of an optimizer; ImportError if a release has it in another form."""
    _part(f"_multilayer_perceptron.{name}")  # which `instep.sklearn.patched` replaces
    found = _part(f"_stochastic_optimizers.{name}")
    for method in _METHODS:
        _part(f"_stochastic_optimizers.{name}.{method}")
    if list(inspect.signature(found.update_params).parameters) != ["self", "params", "grads"]:
        raise ImportError(
            f"{_FACE} needs {name}.update_params(params, grads), which sklearn "
            f"{sklearn.__version__} lacks; instep was tested with sklearn {_TESTED}"
        )
    return found


perceptrons = _part("_multilayer_perceptron")
Perceptron: Any = _part("_multilayer_perceptron.BaseMultilayerPerceptron")
AdamOptimizer: Any = _class("AdamOptimizer")
SGDOptimizer: Any = _class("SGDOptimizer")
