"""Parameters of several formats and sizes, their gradients, and the comparison with the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import CHUNK, numbers
from reference import Reference, assert_follows

SHAPES = {"a": (3, 5), "b": (CHUNK + 7,), "c": (), "d": (171, 240), "e": (0,)}
DTYPES = {"a": "f4", "b": "f2", "c": "f8", "d": "f4", "e": "f4"}


def start(seed: int = 20) -> tuple[np.random.Generator, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return rng, {name: numbers(rng, shape, DTYPES[name]) for name, shape in SHAPES.items()}


def gradients(rng: np.random.Generator, absent: str = "") -> dict[str, Any]:
    return {n: None if n in absent else numbers(rng, shape, "f4") for n, shape in SHAPES.items()}


def check(optimizer: Any, reference: Reference) -> None:
    assert_follows(optimizer, optimizer.params, reference)
    assert optimizer.grad_norm == reference.grad_norm
    assert optimizer._plan.steps == list(reference.steps.values())
