"""Adam and AdamW."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, decayed, maximum


def adam(p, g, s, h, t, T):
    """Kingma & Ba 2015; amsgrad: Reddi et al. 2018, on the uncorrected second moment."""
    beta1, beta2 = h.betas
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_avg_sq"] = w = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    if h.amsgrad:
        s["max_exp_avg_sq"] = w = maximum(s["max_exp_avg_sq"], w)
    if h.eps_hat:
        numerator = T((h.lr * math.sqrt(1 - beta2**t)) / (1 - beta1**t)) * m
        return p - numerator / (np.sqrt(w) + T(h.eps))
    numerator = T(h.lr / (1 - beta1**t)) * m
    return p - numerator / (np.sqrt(w) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))


def adamw(p, g, s, h, t, T):
    """Loshchilov & Hutter 2019: Adam with the decay decoupled from the gradient."""
    return adam(decayed(p, h, T), g, s, h, t, T)


ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "eps_hat": False}
STATES = {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"}
RULES = {
    "Adam": Rule(adam, STATES, COMMON | ADAM),
    "AdamW": Rule(adamw, STATES, COMMON | ADAM | {"weight_decay": 1e-2}, decoupled=True),
}
