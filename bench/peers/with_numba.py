"""What a user of Numba writes: one parallel loop over a flat array, once a tensor."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numba
import numpy as np

from peers import Arrays
from task import Task


def versions() -> dict[str, str]:
    return {"Numba": numba.__version__}


@numba.njit(parallel=True, fastmath=True)
def _adam(p, g, m, v, step_size, root_scale, beta1, beta2, eps):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for i in numba.prange(p.size):
        m[i] = beta1 * m[i] + (one - beta1) * g[i]
        v[i] = beta2 * v[i] + (one - beta2) * g[i] * g[i]
        p[i] -= step_size * m[i] / (math.sqrt(v[i]) * root_scale + eps)


class Numba:
    def __init__(self, task: Task, params: Arrays) -> None:
        assert task.rule == "Adam", f"Numba has no adapter for {task.rule}"
        assert task.dtype == "float32"
        self._params = list(params)
        self._flat = [p.reshape(-1) for p in params]
        self._m = [np.zeros_like(p) for p in self._flat]
        self._v = [np.zeros_like(p) for p in self._flat]
        self._t = 0

    def call(self, grads: Arrays) -> Callable[[], object]:
        return partial(self._step, [g.reshape(-1) for g in grads])

    def _step(self, grads: Arrays) -> None:
        self._t += 1
        beta1, beta2, f4 = 0.9, 0.999, np.float32
        scalars = (
            f4(1e-3 / (1 - beta1**self._t)),
            f4(1 / math.sqrt(1 - beta2**self._t)),
            f4(beta1),
            f4(beta2),
            f4(1e-8),
        )
        for p, g, m, v in zip(self._flat, grads, self._m, self._v, strict=True):
            _adam(p, g, m, v, *scalars)

    def params(self) -> list[np.ndarray]:
        return self._params
