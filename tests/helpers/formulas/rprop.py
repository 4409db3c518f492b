"""Rprop."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, first, maximum, minimum


def rprop(p, g, s, h, t, T):
    """Riedmiller & Braun 1993; a gradient that has changed its sign is taken as 0, as in PyTorch."""
    smaller, larger = h.etas
    low, high = h.step_sizes
    agreement = np.sign(g) * np.sign(s["prev"])
    factor = np.where(agreement > 0, T(larger), np.where(agreement < 0, T(smaller), T(1)))
    k = first(T(h.lr), s["step_size"], t) * factor
    s["step_size"] = k = minimum(maximum(k, T(low)), T(high))
    s["prev"] = q = np.where(agreement < 0, T(0), g)
    return p - np.sign(q) * k


RPROP = {"lr": 1e-2, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)}
STATES = {"prev": None, "step_size": None}
RULES = {"Rprop": Rule(rprop, STATES, COMMON | RPROP)}
