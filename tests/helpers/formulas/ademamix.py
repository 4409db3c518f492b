"""AdEMAMix."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, decayed


def ademamix(p, g, s, h, t, T):
    """Pagliardini et al. 2024: a fast and a slow average of the gradient."""
    p = decayed(p, h, T)
    beta1, beta2, beta3 = h.betas
    s["exp_avg_fast"] = a = T(beta1) * s["exp_avg_fast"] + T(1 - beta1) * g
    s["exp_avg_slow"] = b = T(beta3) * s["exp_avg_slow"] + T(1 - beta3) * g
    s["exp_avg_sq"] = v = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    numerator = T(h.lr / (1 - beta1**t)) * a + T(h.lr * h.alpha) * b
    return p - numerator / (np.sqrt(v) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))


ADEMAMIX = {"lr": 1e-3, "betas": (0.9, 0.999, 0.9999), "alpha": 2.0, "eps": 1e-8}
STATES = {"exp_avg_fast": None, "exp_avg_slow": None, "exp_avg_sq": None}
RULES = {"AdEMAMix": Rule(ademamix, STATES, COMMON | ADEMAMIX, decoupled=True)}
