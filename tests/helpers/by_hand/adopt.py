"""ADOPT."""

from __future__ import annotations

import math

from by_hand.single import ByHand, decayed, root


def adopt_by_hand(T, p, g, s, o, t):
    if t == 1:
        s["exp_avg_sq"] = g * g
        o["rate"] = None
        return p
    if o["decoupled_weight_decay"]:
        p = decayed(T, p, o)
    beta1, beta2 = o["betas"]
    v = s["exp_avg_sq"]
    n = g / max(root(T, v), T(o["eps"]))
    if o["clip_exponent"] is not None:
        c = T(math.pow(t - 1, o["clip_exponent"]))
        n = min(max(n, -c), c)
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * n)
    s["exp_avg_sq"] = (T(beta2) * v) + (T(1 - beta2) * (g * g))
    return p - (T(o["lr"]) * m)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 0.3}
OPTIONS = {"clip_exponent": None, "decoupled_weight_decay": True}
BY_HAND = {"ADOPT": ByHand(adopt_by_hand, OPTIONS, NUMBERS, steps=4)}
