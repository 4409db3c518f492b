"""ADOPT."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, decayed, maximum, minimum, power


def adopt(p, g, s, h, t, T):
    """Taniguchi et al. 2024: the gradient is divided by the root of the mean square before it."""
    if t == 1:
        s["exp_avg_sq"] = g * g
        h.rate = None
        return p
    if h.decoupled_weight_decay:
        p = decayed(p, h, T)
    beta1, beta2 = h.betas
    v = s["exp_avg_sq"]
    n = g / maximum(np.sqrt(v), T(h.eps))
    if h.clip_exponent is not None:
        limit = T(power(float(t - 1), h.clip_exponent))
        n = minimum(maximum(n, -limit), limit)
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * n
    s["exp_avg_sq"] = T(beta2) * v + T(1 - beta2) * (g * g)
    return p - T(h.lr) * m


ADOPT = {"lr": 1e-3, "betas": (0.9, 0.9999), "eps": 1e-6, "clip_exponent": 0.25}
ADOPT |= {"decoupled_weight_decay": False}
STATES = {"exp_avg": None, "exp_avg_sq": None}
RULES = {"ADOPT": Rule(adopt, STATES, COMMON | ADOPT)}
