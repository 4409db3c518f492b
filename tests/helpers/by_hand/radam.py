"""RAdam: rectified from the sixth step on, with these numbers."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, decayed, root


def radam_by_hand(T, p, g, s, o, t):
    if o["decoupled_weight_decay"]:
        p = decayed(T, p, o)
    (beta1, beta2), lr = o["betas"], o["lr"]
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    v = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    longest = (2 / (1 - beta2)) - 1
    length = longest - (((2 * t) * math.pow(beta2, t)) / corrected(beta2, t))
    if length <= 5:
        return p - (T(lr / corrected(beta1, t)) * m)
    top = ((length - 4) * (length - 2)) * longest
    bottom = ((longest - 4) * (longest - 2)) * length
    rate = ((lr * math.sqrt(top / bottom)) * math.sqrt(corrected(beta2, t))) / corrected(beta1, t)
    return p - ((T(rate) * m) / (root(T, v) + T(o["eps"])))


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.9), "eps": 1e-2}
BY_HAND = {"RAdam": ByHand(radam_by_hand, {"decoupled_weight_decay": True}, NUMBERS, steps=7)}
