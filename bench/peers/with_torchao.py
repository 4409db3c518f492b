"""torchao's AdamW with 8-bit states, on the memory of the NumPy arrays; it compiles a function for every shape."""

from __future__ import annotations

import torch
import torchao
from torchao.optim import AdamW8bit

from peers import Arrays
from peers.with_torch import OnTensors, tensors
from task import Task


def versions() -> dict[str, str]:
    return {"torchao": torchao.__version__, "PyTorch": torch.__version__}


class Torchao(OnTensors):
    def __init__(self, task: Task, params: Arrays) -> None:
        assert (task.rule, task.state_dtype) == ("AdamW", "8bit"), (
            "it is for AdamW with 8-bit states"
        )
        super().__init__(task, params, [torch.nn.Parameter(t) for t in tensors(params)])
        self._optimizer = AdamW8bit(self._tensors, **task.hyperparameters)
