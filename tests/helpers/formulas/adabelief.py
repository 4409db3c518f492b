"""AdaBelief."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, decayed


def adabelief(p, g, s, h, t, T):
    """Zhuang et al. 2020: the mean square of the gradient's distance from its mean."""
    if h.decoupled_weight_decay:
        p = decayed(p, h, T)
    beta1, beta2 = h.betas
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    r = g - m
    s["exp_avg_var"] = v = T(beta2) * s["exp_avg_var"] + T(1 - beta2) * (r * r) + T(h.eps)
    numerator = T(h.lr / (1 - beta1**t)) * m
    return p - numerator / (np.sqrt(v) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))


ADABELIEF = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-16, "decoupled_weight_decay": False}
STATES = {"exp_avg": None, "exp_avg_var": None}
RULES = {"AdaBelief": Rule(adabelief, STATES, COMMON | ADABELIEF)}
