"""LAMB."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule
from formulas.sums import total_of_squares


def lamb(p, g, s, h, t, T):
    """You et al. 2020."""
    beta1, beta2 = h.betas
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_avg_sq"] = v = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    root = np.sqrt(v) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps)
    u = T(1 / (1 - beta1**t)) * m / root
    if h.weight_decay:
        u = u + T(h.weight_decay) * p
    q = 1.0
    if h.trust_ratio:
        of_p, of_u = total_of_squares(p), total_of_squares(u)
        if of_p > 0 and of_u > 0:
            q = float(np.sqrt(of_p) / np.sqrt(of_u))
        if h.trust_clip is not None and h.trust_clip < q:
            q = h.trust_clip
    return p - T(h.lr * q) * u


LAMB = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-6, "weight_decay": 1e-2}
LAMB |= {"trust_ratio": True, "trust_clip": None}
STATES = {"exp_avg": None, "exp_avg_sq": None}
RULES = {"LAMB": Rule(lamb, STATES, COMMON | LAMB, decoupled=True)}
