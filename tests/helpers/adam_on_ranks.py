"""A small Distributed with a schedule, its gradients, and what becomes of it in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from cases import CHUNK

import instep
from instep.mpi import Distributed

SIZE, ODD = 3, 1  # ranks, and the one that differs
#: Each rank owns a chunk, the last one also the rest.
SHAPES: dict[str, Any] = {"w": (3 * CHUNK + 5,), "b": (3, 2)}


def gradients(step: int, rank: int) -> dict[str, Any]:
    return {name: np.full(shape, 0.25 * step + rank + 1) for name, shape in SHAPES.items()}


class Lr:
    """A schedule with something to do once."""

    def __init__(self) -> None:
        self.once: Callable[[], object] | None = None

    def __call__(self, step: int) -> float:
        once, self.once = self.once, None
        if once is not None:
            once()
        return 0.1


def made(comm: Any, **more: Any) -> Any:
    params = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    settings = {"lr": Lr(), "clip_norm": 1.0, "shard": True, **more}
    return Distributed(instep.Adam, params, comm=comm, **settings)


def expected(**more: Any) -> dict[str, Any]:
    """The parameters after two steps of which nothing was refused."""
    params = {name: np.ones(shape, np.float32) for name, shape in SHAPES.items()}
    optimizer = instep.Adam(params, lr=0.1, clip_norm=1.0, **more)
    for step in range(2):
        for rank in range(SIZE):
            optimizer.accumulate(gradients(step, rank))
        optimizer.step()
    return params
