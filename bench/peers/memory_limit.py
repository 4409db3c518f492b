"""The memory itself: the bytes of the step and next to no arithmetic."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

import instep
from instep.bench import limit
from peers import Arrays
from task import Task, cores, streams

LINE = 64  # bytes of the caches


def versions() -> dict[str, str]:
    return {"instep": instep.__version__}


class MemoryLimit:
    """Over arrays of its own, one a stream: as good as memory can lie."""

    def __init__(self, task: Task, params: Arrays) -> None:
        del params
        width, passes = streams(task.passes)
        piece = limit.streams(passes, width * task.elements)
        self._call = limit.MemoryLimit(passes, [piece], task.threads or cores())

    def call(self, grads: Arrays) -> Callable[[], object]:
        del grads
        return self._call

    def params(self) -> list[np.ndarray]:
        return []


class SameArrays:
    """Over the arrays that a step goes through: the task's parameters and gradients, and states as instep lays them.

    None of them changes, so that a training loop with it goes on computing with numbers as usual.
    """

    def __init__(self, task: Task, params: Arrays) -> None:
        param, state = task.stored
        if param != state:
            raise ValueError(
                "states of another width than the parameters' are no streams like theirs"
            )
        width, passes = streams(task.passes)
        assert width == param
        self._params = list(params)
        self._pieces = [[param] for param in self._params]
        lengths = [-(-param.nbytes // LINE) * LINE for param in self._params]
        for place in range(1, 1 + task.states):
            whole = limit.stream(sum(lengths), place)
            states = np.split(whole, np.cumsum(lengths)[:-1])
            for piece, array in zip(self._pieces, states, strict=True):
                piece.append(array[: piece[0].nbytes])
        for piece in self._pieces:
            piece.append(piece[0])  # the gradient's place, until there is one
        self._call = limit.MemoryLimit(passes, self._pieces, task.threads or cores())

    def call(self, grads: Arrays) -> Callable[[], object]:
        for piece, grad in zip(self._pieces, grads, strict=True):
            piece[-1] = grad
        return self._call

    def params(self) -> list[np.ndarray]:
        return self._params
