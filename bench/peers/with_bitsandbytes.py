"""bitsandbytes' AdamW with 8-bit states, on the memory of the NumPy arrays."""

from __future__ import annotations

import bitsandbytes
import torch

from peers import Arrays
from peers.with_torch import OnTensors, tensors
from task import Task


def versions() -> dict[str, str]:
    return {"bitsandbytes": bitsandbytes.__version__, "PyTorch": torch.__version__}


class Bitsandbytes(OnTensors):
    def __init__(self, task: Task, params: Arrays) -> None:
        assert (task.rule, task.state_dtype) == ("AdamW", "8bit"), (
            "it is for AdamW with 8-bit states"
        )
        super().__init__(task, params, [torch.nn.Parameter(t) for t in tensors(params)])
        self._optimizer = bitsandbytes.optim.AdamW8bit(self._tensors, **task.hyperparameters)
