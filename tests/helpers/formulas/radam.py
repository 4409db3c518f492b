"""RAdam."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, decayed


def radam(p, g, s, h, t, T):
    """Liu et al. 2020: Adam's step is rectified, or left undivided while its variance is unbounded."""
    if h.decoupled_weight_decay:
        p = decayed(p, h, T)
    beta1, beta2 = h.betas
    bc1, bc2 = 1 - beta1**t, 1 - beta2**t
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_avg_sq"] = v = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * t * beta2**t / bc2
    if rho > 5:
        ratio = (rho - 4) * (rho - 2) * rho_inf / ((rho_inf - 4) * (rho_inf - 2) * rho)
        rate = h.lr * math.sqrt(ratio) * math.sqrt(bc2) / bc1
        return p - T(rate) * m / (np.sqrt(v) + T(h.eps))
    return p - T(h.lr / bc1) * m


RADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "decoupled_weight_decay": False}
STATES = {"exp_avg": None, "exp_avg_sq": None}
RULES = {"RAdam": Rule(radam, STATES, COMMON | RADAM)}
