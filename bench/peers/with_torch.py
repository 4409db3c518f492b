"""PyTorch's optimizers, on the memory of the NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from peers import Arrays
from task import Task


def versions() -> dict[str, str]:
    return {"PyTorch": torch.__version__}


def tensors(arrays: Arrays) -> list[torch.Tensor]:
    """The arrays themselves; bfloat16, which PyTorch doesn't take from NumPy, by its bits."""
    return [
        torch.from_numpy(a.view(np.uint16)).view(torch.bfloat16)
        if a.dtype.name == "bfloat16"
        else torch.from_numpy(a)
        for a in arrays
    ]


class OnTensors:
    """What steps tensors that are the NumPy arrays; a derived class makes `_optimizer`."""

    _optimizer: Any

    def __init__(self, task: Task, params: Arrays, on: list[torch.Tensor]) -> None:
        if task.threads:
            torch.set_num_threads(task.threads)
        self._params, self._tensors = list(params), on
        self._clip_norm = task.clip_norm

    def call(self, grads: Arrays) -> Callable[[], object]:
        for tensor, grad in zip(self._tensors, tensors(grads), strict=True):
            tensor.grad = grad
        return self._optimizer.step if self._clip_norm is None else self._clip_and_step

    def _clip_and_step(self) -> None:
        assert self._clip_norm is not None
        torch.nn.utils.clip_grad_norm_(self._tensors, self._clip_norm)
        self._optimizer.step()

    def params(self) -> list[np.ndarray]:
        return self._params


class _Torch(OnTensors):
    form: dict[str, bool]

    def __init__(self, task: Task, params: Arrays) -> None:
        super().__init__(task, params, tensors(params))
        make: Any = getattr(torch.optim, task.rule)
        self._optimizer = make(self._tensors, **task.hyperparameters, **self.form)


class Loop(_Torch):
    form = {"foreach": False}  # noqa: RUF012 - never changed


class Foreach(_Torch):
    form = {"foreach": True}  # noqa: RUF012


class Fused(_Torch):
    form = {"fused": True}  # noqa: RUF012
