"""Adan."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, first


def adan(p, g, s, h, t, T):
    """Xie et al. 2022, with the decay after the step."""
    beta1, beta2, beta3 = h.betas
    e = g - first(g, s["previous_grad"], t)
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_avg_diff"] = w = T(beta2) * s["exp_avg_diff"] + T(1 - beta2) * e
    q = g + T(beta2) * e
    s["exp_avg_sq"] = n = T(beta3) * s["exp_avg_sq"] + T(1 - beta3) * (q * q)
    s["previous_grad"] = g
    rate, rate_of_diff = h.lr / (1 - beta1**t), h.lr * beta2 / (1 - beta2**t)
    numerator = T(rate) * m + T(rate_of_diff) * w
    p = p - numerator / (np.sqrt(n) * T(1 / math.sqrt(1 - beta3**t)) + T(h.eps))
    return p * T(1 / (1 + h.lr * h.weight_decay)) if h.weight_decay else p


ADAN = {"lr": 1e-3, "betas": (0.98, 0.92, 0.99), "eps": 1e-8}
STATES = {"exp_avg": None, "exp_avg_diff": None, "exp_avg_sq": None, "previous_grad": None}
RULES = {"Adan": Rule(adan, STATES, COMMON | ADAN, decoupled=True)}
