"""Adam and AdamW."""

from __future__ import annotations

import math

from by_hand.single import ByHand, decayed


def adam_by_hand(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    w = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    if o["amsgrad"]:
        w = s["max_exp_avg_sq"] = max(s["max_exp_avg_sq"], w)
    if o["eps_hat"]:
        rate = (o["lr"] * math.sqrt(1 - math.pow(beta2, t))) / (1 - math.pow(beta1, t))
        return p - ((T(rate) * m) / (T(math.sqrt(w)) + T(o["eps"])))
    top = T(o["lr"] / (1 - math.pow(beta1, t))) * m
    bottom = (T(math.sqrt(w)) * T(1 / math.sqrt(1 - math.pow(beta2, t)))) + T(o["eps"])
    return p - (top / bottom)


def adamw_by_hand(T, p, g, s, o, t):
    return adam_by_hand(T, decayed(T, p, o), g, s, o, t)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
OPTIONS = {"amsgrad": True, "eps_hat": True}
BY_HAND = {
    "Adam": ByHand(adam_by_hand, OPTIONS, NUMBERS),
    "AdamW": ByHand(adamw_by_hand, OPTIONS, NUMBERS | {"weight_decay": 2.2}),
}
