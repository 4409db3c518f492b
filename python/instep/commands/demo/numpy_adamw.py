"""AdamW as usually written in NumPy, to compare with."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["NumpyAdamW"]

Array = npt.NDArray[Any]


class NumpyAdamW:
    """AdamW in plain NumPy, with the operations of `instep.AdamW` in the same order.

    NumPy rounds a Python float to the array's dtype once and then each operation once, so the
    parameters come out equal to instep's in every bit. One thing rests on more than that: the order
    in which a norm's squares are added is each library's own. The two norms are doubles that
    differ in their last bits at most; the scale made of them is rounded to float32, half a
    billion times coarser.

    Parameters
    ----------
    params : dict name -> array
        Changed in place.
    lr : callable
        From the number of completed steps to the learning rate.
    betas, eps, weight_decay, clip_norm
        As for `instep.AdamW`.
    """

    def __init__(
        self,
        params: dict[str, Array],
        lr: Callable[[int], float],
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        clip_norm: float | None = None,
    ) -> None:
        self.params = params
        self.lr = lr
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.clip_norm = clip_norm
        self.step_count = 0
        self.exp_avg = {name: np.zeros_like(p) for name, p in params.items()}
        self.exp_avg_sq = {name: np.zeros_like(p) for name, p in params.items()}

    def step(self, grads: dict[str, Array]) -> None:
        """Change the parameters in place, once, by these gradients."""
        lr = self.lr(self.step_count)
        self.step_count += 1
        if self.clip_norm is not None:
            norm = math.sqrt(sum(np.square(g, dtype=np.float64).sum() for g in grads.values()))
            if norm > self.clip_norm:
                scale = self.clip_norm / norm
                grads = {name: g * scale for name, g in grads.items()}
        for name, p in self.params.items():
            self._update(name, p, grads[name], lr)

    def _update(self, name: str, p: Array, g: Array, lr: float) -> None:
        (beta1, beta2), t = self.betas, self.step_count
        m = self.exp_avg[name] = beta1 * self.exp_avg[name] + (1 - beta1) * g
        v = self.exp_avg_sq[name] = beta2 * self.exp_avg_sq[name] + (1 - beta2) * (g * g)
        if self.weight_decay:
            p *= 1 - lr * self.weight_decay
        p -= lr / (1 - beta1**t) * m / (np.sqrt(v) * (1 / math.sqrt(1 - beta2**t)) + self.eps)
