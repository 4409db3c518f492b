"""What a contestant is asked to do."""

from __future__ import annotations

import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from package import workloads

STATES = {"Adam": 2, "RMSprop": 1, "SGD": 0}  # a parameter's, without momentum; of rules in rows.py
LAYERS = (784, 256, 128, 10)  # of the training loop's perceptron


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """A step over a workload or, with a batch, an iteration of a training loop."""

    workload: str
    rule: str = "Adam"
    dtype: str = "float32"  # of parameters and gradients
    state_dtype: str | None = None  # the dtype where it is None
    settings: dict[str, float] = field(default_factory=dict)  # besides lr, in PyTorch's names
    clip_norm: float | None = None
    threads: int | None = None  # each library's own choice, as its users get it
    side_by_side: bool = False  # parameters in one array, gradients in another, else an array each
    batch: int | None = None
    keeps_freed_memory: bool = True  # from the start on, see turns.keep_freed_memory

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        return workloads.shapes_of(self.workload)

    @property
    def elements(self) -> int:
        return workloads.elements(self.shapes)

    @property
    def stored(self) -> tuple[int, int]:
        """Bytes of an element of a parameter and of a state."""
        sizes = {"float64": 8, "float32": 4, "bfloat16": 2}
        return sizes[self.dtype], sizes[self.state_dtype or self.dtype]

    @property
    def states(self) -> int:
        return STATES[self.rule] + bool(self.settings.get("momentum"))

    @property
    def passes(self) -> list[tuple[int, int]]:
        """Bytes an element that each pass over memory reads and, of these, writes too.

        Parameter and states are read and written, the gradient is read, and read before where its norm is wanted.
        """
        param, state = self.stored
        written = param + self.states * state
        update = (written + param, written)
        return [update] if self.clip_norm is None else [(param, 0), update]

    @property
    def memory(self) -> int:
        """Bytes that a contestant holds for it, about."""
        param, state = self.stored
        return self.elements * (2 * param + self.states * state)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return numpy_dtype(self.dtype)


def side_by_side(arrays: list[np.ndarray[Any, Any]]) -> list[np.ndarray[Any, Any]]:
    """Return the same arrays as views of a single one."""
    whole = np.concatenate([array.ravel() for array in arrays])
    ends = np.cumsum([array.size for array in arrays])
    pieces = np.split(whole, ends[:-1])
    return [piece.reshape(array.shape) for piece, array in zip(pieces, arrays, strict=True)]


def numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes  # noqa: PLC0415 - NumPy has no such dtype of its own

        return np.dtype(ml_dtypes.bfloat16)
    return np.dtype(name)


def in_streams(passes: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """Bytes of an element of one stream, and the passes in such streams: as few and as wide as their bytes allow."""
    width = math.gcd(*(count for one in passes for count in one))
    return width, [(read // width, written // width) for read, written in passes]
