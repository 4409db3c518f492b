"""LARS."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule
from formulas.sums import total_of_squares


def lars(p, g, s, h, t, T):
    """You et al. 2017."""
    q = 1.0
    if h.trust_ratio:
        of_p, of_g = total_of_squares(p), total_of_squares(g)
        if of_p > 0 and of_g > 0:
            of_p, of_g = np.float64(np.sqrt(of_p)), np.float64(np.sqrt(of_g))
            q = float(h.trust_coefficient * of_p / (of_g + h.weight_decay * of_p + h.eps))
    if h.weight_decay:
        g = g + T(h.weight_decay) * p
    g = g * T(q)
    if "momentum_buffer" not in s:
        return p - T(h.lr) * g
    b = s["momentum_buffer"]
    s["momentum_buffer"] = b = g if t == 1 else T(h.momentum) * b + T(1 - h.dampening) * g
    return p - T(h.lr) * (g + T(h.momentum) * b if h.nesterov else b)


LARS = {"lr": 1.0, "momentum": 0.9, "dampening": 0.0, "nesterov": False}
LARS |= {"trust_coefficient": 1e-3, "eps": 1e-8, "trust_ratio": True}
RULES = {"LARS": Rule(lars, {"momentum_buffer": "momentum"}, COMMON | LARS, decoupled=True)}
