"""instep itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

import instep
from peers import Arrays
from task import Task, numpy_dtype


def versions() -> dict[str, str]:
    return {"instep": instep.__version__}


class Instep:
    def __init__(self, task: Task, params: Arrays) -> None:
        instep.set_num_threads(task.threads)
        more: dict[str, Any] = dict(task.settings)
        if task.state_dtype or task.dtype == "bfloat16":
            more["state_dtype"] = numpy_dtype(task.state_dtype or task.dtype)
        if task.clip_norm is not None:
            more["clip_norm"] = task.clip_norm
        self._params = list(params)
        self._optimizer = getattr(instep, task.rule)(self._params, lr=1e-3, **more)

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._optimizer.step, grads)

    def params(self) -> list[np.ndarray]:
        return self._params

    def states(self) -> list[Mapping[str, np.ndarray]]:
        """Each parameter's, by name."""
        return list(self._optimizer.state.values())
