"""Adamax."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, maximum


def adamax(p, g, s, h, t, T):
    """Kingma & Ba 2015, section 7.1; eps is added to |g|, as in PyTorch."""
    beta1, beta2 = h.betas
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_inf"] = u = maximum(T(beta2) * s["exp_inf"], np.abs(g) + T(h.eps))
    return p - T(h.lr / (1 - beta1**t)) * m / u


ADAMAX = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8}
STATES = {"exp_avg": None, "exp_inf": None}
RULES = {"Adamax": Rule(adamax, STATES, COMMON | ADAMAX)}
