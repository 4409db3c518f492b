"""The memory itself: the bytes of the step and next to no arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

import instep
from instep.commands.bench import limit
from peers import Arrays
from peers.with_instep import Instep
from task import Task, cores
from traffic import in_streams, is_split, passes_of, state_bytes


def versions() -> dict[str, str]:
    return {"instep": instep.__version__}


class MemoryLimit:
    """Over arrays of its own, one a stream: as good as memory can lie."""

    def __init__(self, task: Task, params: Arrays) -> None:
        del params
        width, passes = in_streams(passes_of(task))
        arrays = limit.stream_arrays(passes, width * task.elements)
        self._limit = limit.MemoryLimit(passes, [arrays], task.threads or cores())

    def call(self, grads: Arrays) -> Callable[[], object]:
        del grads
        return self._limit

    def params(self) -> list[np.ndarray]:
        return []


class SameArrays:
    """Over the arrays that a step goes through: the task's parameters and gradients, and an optimizer's states.

    None of them changes, so that a training loop with it goes on computing with numbers as usual.
    """

    def __init__(self, task: Task, params: Arrays) -> None:
        if {task.numpy_dtype.itemsize, *state_bytes(task)} != {task.numpy_dtype.itemsize}:
            raise ValueError(
                "states of another width than the parameters' are no streams like theirs"
            )
        if is_split(task):
            raise ValueError("the arrays are more than its loop goes through together")
        ours = Instep(task, params)
        self._params = ours.params()
        _, passes = in_streams(passes_of(task))
        pieces = [
            # For the gradient's place there are no bytes yet, only room that nobody touches.
            [param, *states, np.empty_like(param)]
            for param, states in zip(self._params, ours.states(), strict=True)
        ]
        self._limit = limit.MemoryLimit(passes, pieces, task.threads or cores())

    def call(self, grads: Arrays) -> Callable[[], object]:
        return _Move(self._limit, list(grads))

    def params(self) -> list[np.ndarray]:
        return self._params


class _Move(NamedTuple):
    """The limit with these gradients, which live no longer than this: in a loop NumPy puts the next in their place."""

    limit: limit.MemoryLimit
    grads: list[np.ndarray]

    def __call__(self) -> None:
        self.limit(self.grads)

    def turn(self, seconds: float) -> float:
        return self.limit.turn(seconds, self.grads)
