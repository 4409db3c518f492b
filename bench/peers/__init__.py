"""The contestants: one small adapter each.

An adapter is made from a task and the parameters (NumPy arrays of float64, float32 or bfloat16), and has

- ``call(grads)``: hands over the gradients (NumPy arrays) and returns the step as a callable, as short as it can be;
- ``params()``: the parameters as they are now, as NumPy arrays, for the tests;

and its module ``versions()``, what to name in a report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple, Protocol

import numpy as np

from task import Task

Arrays = Sequence[np.ndarray]


class Contestant(Protocol):
    def call(self, grads: Arrays) -> Callable[[], object]: ...

    def params(self) -> list[np.ndarray]: ...


class Peer(NamedTuple):
    module: str
    adapter: str
    needs_arrays: bool = True

    def load(self) -> Any:
        return import_module(f"peers.{self.module}")

    def start(self, task: Task, params: Arrays) -> Contestant:
        contestant: Contestant = getattr(self.load(), self.adapter)(task, params)
        return contestant

    def versions(self) -> dict[str, str]:
        found: dict[str, str] = self.load().versions()
        return found


PEERS = {
    "instep": Peer("with_instep", "Instep"),
    "memory limit": Peer("memory_limit", "MemoryLimit", needs_arrays=False),
    "memory limit, same arrays": Peer("memory_limit", "SameArrays"),
    "NumPy": Peer("with_numpy", "NumpyExpression"),
    "NumPy in place": Peer("with_numpy", "NumpyInPlace"),
    "scikit-learn": Peer("with_sklearn", "Sklearn"),
    "Numba": Peer("with_numba", "Numba"),
    "torch loop": Peer("with_torch", "Loop"),
    "torch foreach": Peer("with_torch", "Foreach"),
    "torch fused": Peer("with_torch", "Fused"),
    "DeepSpeed": Peer("with_deepspeed", "DeepSpeed"),
    "optax": Peer("with_optax", "Optax"),
    "arithmetic": Peer("arithmetic", "Arithmetic", needs_arrays=False),
    "bitsandbytes": Peer("with_bitsandbytes", "Bitsandbytes"),
    "torchao": Peer("with_torchao", "Torchao"),
}
