"""More elements than a 32-bit number counts. Deselected unless asked for: `pytest -m large_memory`."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16

import instep

pytestmark = pytest.mark.large_memory
SIZE = 2**31 + 17
BLOCK = 1 << 24


def free_memory() -> float:
    """In GB; 0 where the system doesn't say."""
    try:
        with open("/proc/meminfo", encoding="utf-8") as file:
            lines = dict(line.split(":", 1) for line in file)
    except OSError:
        return 0.0
    return int(lines["MemAvailable"].split()[0]) / 1e6


def count(array: Any, value: float) -> int:
    """Elements that have that value, without another array of their number."""
    blocks = range(0, array.size, BLOCK)
    return sum(int((array[i : i + BLOCK] == value).sum()) for i in blocks)


@pytest.mark.parametrize("threads", [1, 2])
def test_sgd_of_bfloat16(threads: int) -> None:
    """9 GB: every element is stepped, once, and elements beyond 2^31 by their own gradients."""
    if free_memory() < 10:
        pytest.skip(f"{free_memory():.1f} GB are free; 10 are wanted")
    instep.set_num_threads(threads)
    w, g = np.zeros(SIZE, BFLOAT16), np.ones(SIZE, BFLOAT16)
    marked = [0, 2**31 - 1, 2**31, SIZE - 1]
    g[marked] = [2.0, 3.0, 4.0, 5.0]
    optimizer = instep.SGD(w, lr=1.0, clip_value=8.0)
    optimizer.step(g)
    assert w[marked].tolist() == [-2.0, -3.0, -4.0, -5.0]
    assert count(w, -1.0) == SIZE - len(marked)
    optimizer.step(g)
    assert w[marked].tolist() == [-4.0, -6.0, -8.0, -10.0]
    assert count(w, -2.0) == SIZE - len(marked)


def test_a_broadcast_gradient_and_the_norm() -> None:
    """5 GB: strides, and a norm over as many squares."""
    if free_memory() < 6:
        pytest.skip(f"{free_memory():.1f} GB are free; 6 are wanted")
    w = np.zeros((2, SIZE // 2 + 1), BFLOAT16)
    optimizer = instep.SGD(w.T, lr=1.0, clip_norm=float("inf"))
    optimizer.step(np.broadcast_to(np.float32(0.5), w.T.shape))
    assert optimizer.grad_norm == 0.5 * float(w.size) ** 0.5
    assert count(w.reshape(-1), -0.5) == w.size
