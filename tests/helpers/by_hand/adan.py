"""Adan."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, root


def adan_by_hand(T, p, g, s, o, t):
    (beta1, beta2, beta3), lr = o["betas"], o["lr"]
    e = g - (g if t == 1 else s["previous_grad"])
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    w = s["exp_avg_diff"] = (T(beta2) * s["exp_avg_diff"]) + (T(1 - beta2) * e)
    q = g + (T(beta2) * e)
    n = s["exp_avg_sq"] = (T(beta3) * s["exp_avg_sq"]) + (T(1 - beta3) * (q * q))
    s["previous_grad"] = g
    top = T(lr / corrected(beta1, t)) * m
    top = top + (T((lr * beta2) / corrected(beta2, t)) * w)
    bottom = (root(T, n) * T(1 / math.sqrt(corrected(beta3, t)))) + T(o["eps"])
    p = p - (top / bottom)
    return p * T(1 / (1 + (lr * o["weight_decay"]))) if o["weight_decay"] else p


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.8, 0.6), "eps": 1e-2}
BY_HAND = {"Adan": ByHand(adan_by_hand, {"weight_decay": 2.2}, NUMBERS)}
