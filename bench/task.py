"""What a contestant is asked to do."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

import models
from package import workloads

OURS = "instep"
NO_STEP = "no step"  # a training loop without one
CODED = "8bit"  # a state_dtype that isn't NumPy's
LAYERS = (784, 256, 128, 10)  # of the training loop's perceptron


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class Task:
    """A step over a workload or, with a batch, an iteration of a training loop; with a program, in PyTorch."""

    workload: str
    rule: str = "Adam"
    dtype: str = "float32"  # of parameters and gradients
    state_dtype: str | None = None  # the dtype where it is None
    settings: dict[str, Any] = field(default_factory=dict)  # other than the rule's defaults
    clip_norm: float | None = None
    threads: int | None = None  # each library's own choice, as its users get it
    side_by_side: bool = False  # parameters in one array, gradients in another, else an array each
    batch: int | None = None
    keeps_freed_memory: bool = True  # from the start on, see turns.keep_freed_memory
    program: str = ""  # of programs.py

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        known = models.SHAPES.get(self.workload)
        return workloads.shapes_of(self.workload) if known is None else known

    @property
    def elements(self) -> int:
        return workloads.elements(self.shapes)

    @property
    def hyperparameters(self) -> dict[str, Any]:
        """What a contestant's optimizer is made with.

        A small lr: LAMB and LARS lengthen their steps with the weights, and thousands of steps are to stay finite.
        """
        return {"lr": 1e-3, **self.settings}

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
