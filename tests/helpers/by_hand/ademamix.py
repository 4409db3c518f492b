"""AdEMAMix."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, decayed, root


def ademamix_by_hand(T, p, g, s, o, t):
    p = decayed(T, p, o)
    (beta1, beta2, beta3), lr = o["betas"], o["lr"]
    a = s["exp_avg_fast"] = (T(beta1) * s["exp_avg_fast"]) + (T(1 - beta1) * g)
    b = s["exp_avg_slow"] = (T(beta3) * s["exp_avg_slow"]) + (T(1 - beta3) * g)
    v = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    top = (T(lr / corrected(beta1, t)) * a) + (T(lr * o["alpha"]) * b)
    bottom = (root(T, v) * T(1 / math.sqrt(corrected(beta2, t)))) + T(o["eps"])
    return p - (top / bottom)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6, 0.8), "alpha": 1.7, "eps": 1e-2}
BY_HAND = {"AdEMAMix": ByHand(ademamix_by_hand, {"weight_decay": 2.2}, NUMBERS)}
