"""PyTorch's threads, on which steps run: a process has one set of threads, whichever library was imported first."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from instep import _core
from instep.torch.tensors import torch

__all__ = ["TEAM", "settle"]

#: The threads of the OpenMP runtime that PyTorch calls; None if there is none, and then steps stay on their own thread.
TEAM: _core.Team | None = _core.find_team(
    str(Path(torch.__file__).with_name("lib") / "libtorch_cpu.so")
)
#: To be called before a step: in a new thread, PyTorch sets the number of threads only when it is asked for it.
settle: Any = torch.get_num_threads
