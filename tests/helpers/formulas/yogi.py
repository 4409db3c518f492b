"""Yogi."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, first


def yogi(p, g, s, h, t, T):
    """Zaheer et al. 2018: the mean square moves by the gradient's square, whatever its own size."""
    beta1, beta2 = h.betas
    start = T(h.initial_accumulator_value)
    s["exp_avg"] = m = T(beta1) * first(start, s["exp_avg"], t) + T(1 - beta1) * g
    v = first(start, s["exp_avg_sq"], t)
    q = g * g
    s["exp_avg_sq"] = v = v - T(1 - beta2) * (np.sign(v - q) * q)
    numerator = T(h.lr / (1 - beta1**t)) * m
    return p - numerator / (np.sqrt(v) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))


YOGI = {"lr": 1e-2, "betas": (0.9, 0.999), "eps": 1e-3, "initial_accumulator_value": 1e-6}
STATES = {"exp_avg": None, "exp_avg_sq": None}
RULES = {"Yogi": Rule(yogi, STATES, COMMON | YOGI)}
