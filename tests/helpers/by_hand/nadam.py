"""NAdam."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, decayed, root


def nadam_by_hand(T, p, g, s, o, t):
    if o["decoupled_weight_decay"]:
        p = decayed(T, p, o)
    beta1, beta2 = o["betas"]
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    v = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    if o["momentum_decay"] is None:
        of_g = o["lr"] * (1 - beta1) / corrected(beta1, t)
        of_m = o["lr"] * beta1 / corrected(beta1, t)
    else:
        now = beta1 * (1 - 0.5 * math.pow(0.96, t * o["momentum_decay"]))
        after = beta1 * (1 - 0.5 * math.pow(0.96, (t + 1) * o["momentum_decay"]))
        s["mu_product"] = product = now * (s["mu_product"] if t > 1 else 1.0)
        of_g = o["lr"] * (1 - now) / (1 - product)
        of_m = o["lr"] * after / (1 - product * after)
    bottom = (root(T, v) * T(1 / math.sqrt(corrected(beta2, t)))) + T(o["eps"])
    return p - (((T(of_g) * g) + (T(of_m) * m)) / bottom)


BY_HAND = {
    "NAdam": ByHand(
        nadam_by_hand,
        {"decoupled_weight_decay": True, "momentum_decay": None},
        {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2, "momentum_decay": 0.7},
    )
}
