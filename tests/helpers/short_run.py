"""Parameters and gradients of a short run."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import numbers

STEPS, STOP = 7, 3


def arrays(dtype: Any = "f4") -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    rng = np.random.default_rng(30)
    params = {"w": numbers(rng, (4, 5), dtype), "b": numbers(rng, 3, dtype)}
    grads: list[dict[str, Any]] = []
    for k in range(STEPS):
        grads.append({n: numbers(rng, p.shape, dtype) for n, p in params.items()})
        if k == 1:
            grads[-1]["b"] = None  # so that the parameters' own step counts differ
    return params, grads
