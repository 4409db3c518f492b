"""Adam and AdamW."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, maximum
from formulas.sums import total


def clip(g, s, h, t, T):
    """Wortsman et al. 2023: a lower rate where the updates are too long."""
    if h.clip_update is None or g.size == 0:
        return
    beta2 = h.betas[1]
    v = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    limit = T(h.eps) * T(h.eps)
    terms = (g * g) / maximum(v * T(1 / (1 - beta2**t)), limit)
    above = math.sqrt(total(terms) / g.size) / h.clip_update
    h.rate = h.lr / (above if above > 1 else 1)


def adam(p, g, s, h, t, T):
    """Kingma & Ba 2015; amsgrad: Reddi et al. 2018, on the uncorrected second moment."""
    beta1, beta2 = h.betas
    clip(g, s, h, t, T)
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_avg_sq"] = w = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    if h.amsgrad:
        s["max_exp_avg_sq"] = w = maximum(s["max_exp_avg_sq"], w)
    if h.eps_hat:
        numerator = T((h.rate * math.sqrt(1 - beta2**t)) / (1 - beta1**t)) * m
        return p - numerator / (np.sqrt(w) + T(h.eps))
    numerator = T(h.rate / (1 - beta1**t)) * m
    return p - numerator / (np.sqrt(w) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))


def adamw(p, g, s, h, t, T):
    """Loshchilov & Hutter 2019: Adam with the decay decoupled from the gradient."""
    clip(g, s, h, t, T)
    if h.weight_decay:
        p = p * T(1 - h.rate * h.weight_decay)
    return adam(p, g, s, h, t, T)


ADAM = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False, "eps_hat": False}
ADAM |= {"clip_update": None}
STATES = {"exp_avg": None, "exp_avg_sq": None, "max_exp_avg_sq": "amsgrad"}
RULES = {
    "Adam": Rule(adam, STATES, COMMON | ADAM),
    "AdamW": Rule(adamw, STATES, COMMON | ADAM | {"weight_decay": 1e-2}, decoupled=True),
}
