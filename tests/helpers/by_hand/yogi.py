"""Yogi."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, root, sign


def yogi_by_hand(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    if t == 1:
        s["exp_avg"] = s["exp_avg_sq"] = T(o["initial_accumulator_value"])
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    v, q = s["exp_avg_sq"], g * g
    v = s["exp_avg_sq"] = v - (T(1 - beta2) * (sign(T, v - q) * q))
    bottom = (root(T, v) * T(1 / math.sqrt(corrected(beta2, t)))) + T(o["eps"])
    return p - ((T(o["lr"] / corrected(beta1, t)) * m) / bottom)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
BY_HAND = {"Yogi": ByHand(yogi_by_hand, {"initial_accumulator_value": 0.3}, NUMBERS)}
