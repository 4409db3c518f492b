"""instep itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import instep
from peers import Arrays
from task import CODED, Task, numpy_dtype


def versions() -> dict[str, str]:
    return {"instep": instep.__version__}


def optimizer_of(task: Task, params: Arrays) -> instep.Optimizer:
    more: dict[str, Any] = task.hyperparameters
    if task.state_dtype or task.dtype == "bfloat16":
        name = task.state_dtype or task.dtype
        more["state_dtype"] = name if name == CODED else numpy_dtype(name)
    if task.clip_norm is not None:
        more["clip_norm"] = task.clip_norm
    made: instep.Optimizer = getattr(instep, task.rule)(list(params), **more)
    return made


class Instep:
    def __init__(self, task: Task, params: Arrays) -> None:
        instep.set_num_threads(task.threads)
        self._params = list(params)
        self._optimizer = optimizer_of(task, self._params)

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._optimizer.step, grads)

    def params(self) -> list[np.ndarray]:
        return self._params

    def states(self) -> list[list[np.ndarray]]:
        """Each parameter's, without those that are one number."""
        return [
            [state for state in states.values() if state.shape == param.shape]
            for param, states in zip(self._params, self._optimizer.state.values(), strict=True)
        ]
