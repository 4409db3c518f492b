"""AdaBelief."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, decayed, root


def adabelief_by_hand(T, p, g, s, o, t):
    if o["decoupled_weight_decay"]:
        p = decayed(T, p, o)
    (beta1, beta2), eps = o["betas"], T(o["eps"])
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    apart = (g - m) * (g - m)
    v = s["exp_avg_var"] = ((T(beta2) * s["exp_avg_var"]) + (T(1 - beta2) * apart)) + eps
    bottom = (root(T, v) * T(1 / math.sqrt(corrected(beta2, t)))) + eps
    return p - ((T(o["lr"] / corrected(beta1, t)) * m) / bottom)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
BY_HAND = {"AdaBelief": ByHand(adabelief_by_hand, {"decoupled_weight_decay": True}, NUMBERS)}
