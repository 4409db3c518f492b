"""scikit-learn's own Adam, which trains its MLPClassifier: expressions in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import sklearn
from sklearn.neural_network._stochastic_optimizers import AdamOptimizer

from peers import Arrays
from task import Task


def versions() -> dict[str, str]:
    return {"scikit-learn": sklearn.__version__}


class Sklearn:
    def __init__(self, task: Task, params: Arrays) -> None:
        assert task.rule == "Adam", f"scikit-learn has no adapter for {task.rule}"
        self._params = list(params)
        self._optimizer = AdamOptimizer(self._params, learning_rate_init=1e-3)

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._optimizer.update_params, self._params, grads)

    def params(self) -> list[np.ndarray]:
        return self._params
