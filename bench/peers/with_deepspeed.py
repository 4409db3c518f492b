"""DeepSpeed's CPUAdam, which compiles its own extension at first use."""

from __future__ import annotations

import os
from collections.abc import Callable

os.environ.setdefault("DS_ACCELERATOR", "cpu")

import deepspeed
import numpy as np
from deepspeed.ops.adam import DeepSpeedCPUAdam

from peers import Arrays
from peers.with_torch import tensors
from task import Task


def versions() -> dict[str, str]:
    return {"DeepSpeed": deepspeed.__version__}


class DeepSpeed:
    def __init__(self, task: Task, params: Arrays) -> None:
        assert task.rule == "Adam", f"DeepSpeed has no adapter for {task.rule}"
        self._params = list(params)
        self._tensors = [t.requires_grad_() for t in tensors(params)]
        self._optimizer = DeepSpeedCPUAdam(self._tensors, lr=1e-3)

    def call(self, grads: Arrays) -> Callable[[], object]:
        for tensor, grad in zip(self._tensors, tensors(grads), strict=True):
            tensor.grad = grad
        return self._optimizer.step

    def params(self) -> list[np.ndarray]:
        return self._params
