"""Plain NumPy: expressions over whole arrays, as in the demonstration, and the same with every result put in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
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
        make = module("commands.demo.numpy_adamw").NumpyAdamW
        self._step = make(self._params, lambda step: 1e-3, weight_decay=0.0).step

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._step, dict(zip(self._params, grads, strict=True)))

    def params(self) -> list[np.ndarray]:
        return list(self._params.values())


class NumpyInPlace:
    """No array is made: each operation writes into one that is there."""

    _betas = 0.9, 0.999

    def __init__(self, task: Task, params: Arrays) -> None:
        assert task.rule == "Adam", f"NumPy has no adapter for {task.rule}"
        assert task.clip_norm is None
        self._params = params
        self._states = [(np.zeros_like(p), np.zeros_like(p)) for p in params]
        room = [np.empty(max(p.size for p in params), task.numpy_dtype) for _ in range(2)]
        self._rooms = [[r[: p.size].reshape(p.shape) for r in room] for p in params]
        self._steps = 0

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._step, grads)

    def params(self) -> list[np.ndarray]:
        return list(self._params)

    def _step(self, grads: Arrays) -> None:
        self._steps += 1
        size = 1e-3 / (1 - self._betas[0] ** self._steps)
        correction = 1 / math.sqrt(1 - self._betas[1] ** self._steps)
        for arrays in zip(self._params, grads, self._states, self._rooms, strict=True):
            self._update(size, correction, *arrays)

    def _update(
        self,
        size: float,
        correction: float,
        p: np.ndarray,
        g: np.ndarray,
        states: Sequence[np.ndarray],
        room: Sequence[np.ndarray],
    ) -> None:
        (beta1, beta2), (m, v), (a, b) = self._betas, states, room
        m *= beta1
        np.multiply(g, 1 - beta1, out=a)
        m += a
        v *= beta2
        np.multiply(g, g, out=a)
        a *= 1 - beta2
        v += a
        np.sqrt(v, out=a)
        a *= correction
        a += 1e-8
        np.multiply(m, size, out=b)
        b /= a
        p -= b
