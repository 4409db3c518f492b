"""The parts that a host gives to `instep.Steps`: numbers of rules, and places with its own states."""

from __future__ import annotations

from typing import Any

import numpy as np

import instep

ADAM = {"lr": 0.1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8}

SGD = {"lr": 1.0, "momentum": 0.0, "dampening": 0.0}


def adam_place(steps: instep.Steps, place: int, w: Any, t: int = 0) -> dict[str, np.ndarray]:
    wide = np.float64 if w.dtype == np.float64 else np.float32
    states = {name: np.zeros(w.shape, wide) for name in ("exp_avg", "exp_avg_sq")}
    steps.bind(place, w, states=states, t=t)
    return states
