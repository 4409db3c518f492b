"""The step itself without its memory: over arrays in the caches, as long as it would take for all elements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

import instep
from package import turns, workloads
from peers import Arrays
from peers.with_instep import Instep
from task import Task, cores

ELEMENTS = 60_000  # in float32 and with float32 states, not quite a megabyte


def versions() -> dict[str, str]:
    return {"instep": instep.__version__}


class Arithmetic:
    """On one thread; the elements are shared among the task's threads."""

    def __init__(self, task: Task, params: Arrays) -> None:
        del params
        small = replace(task, workload=str(ELEMENTS), threads=1)
        arrays, grads = (workloads.filled(small.shapes, small.numpy_dtype, k) for k in range(2))
        step = Instep(small, arrays).call(grads)
        self._scaled = _Scaled(step, task.elements / ELEMENTS / (task.threads or cores()))

    def call(self, grads: Arrays) -> Callable[[], object]:
        del grads
        return self._scaled

    def params(self) -> list[np.ndarray]:
        return []


class _Scaled(NamedTuple):
    step: Callable[[], object]
    times: float

    def __call__(self) -> None:
        self.step()

    def turn(self, seconds: float) -> float:
        return self.times * turns.pace(self.step, seconds)
