"""Plain NumPy: expressions over whole arrays, as in the demonstration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from package import module
from peers import Arrays
from task import Task


def versions() -> dict[str, str]:
    return {"NumPy": np.__version__}


class NumpyExpression:
    def __init__(self, task: Task, params: Arrays) -> None:
        assert task.rule == "Adam", f"NumPy has no adapter for {task.rule}"
        assert task.clip_norm is None
        self._params = {str(i): p for i, p in enumerate(params)}
        make = module("demo.numpy_adamw").NumpyAdamW
        self._step = make(self._params, lambda step: 1e-3, weight_decay=0.0).step

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._step, dict(zip(self._params, grads, strict=True)))

    def params(self) -> list[np.ndarray]:
        return list(self._params.values())
