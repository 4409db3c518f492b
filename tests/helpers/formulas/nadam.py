"""NAdam."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, decayed


def nadam(p, g, s, h, t, T):
    """Dozat 2016; with momentum_decay None the form of AlgoPerf."""
    if h.decoupled_weight_decay:
        p = decayed(p, h, T)
    beta1, beta2 = h.betas
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(1 - beta1) * g
    s["exp_avg_sq"] = v = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    if h.momentum_decay is None:
        a, b = h.lr * (1 - beta1) / (1 - beta1**t), h.lr * beta1 / (1 - beta1**t)
    else:
        mu, after = (beta1 * (1 - 0.5 * 0.96 ** (n * h.momentum_decay)) for n in (t, t + 1))
        s["mu_product"] = product = (1.0 if t == 1 else s["mu_product"]) * mu
        a, b = h.lr * (1 - mu) / (1 - product), h.lr * after / (1 - product * after)
    return p - (T(a) * g + T(b) * m) / (np.sqrt(v) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))


NADAM = {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "momentum_decay": 4e-3}
NADAM |= {"decoupled_weight_decay": False}
RULES = {
    "NAdam": Rule(
        nadam,
        {"exp_avg": None, "exp_avg_sq": None},
        COMMON | NADAM,
        scalars={"mu_product": "momentum_decay"},
        none_is_off=("momentum_decay",),
    )
}
