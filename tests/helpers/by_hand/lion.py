"""Lion."""

from __future__ import annotations

from by_hand.single import ByHand, decayed, sign


def lion_by_hand(T, p, g, s, o, t):
    p = decayed(T, p, o)
    (beta1, beta2), m = o["betas"], s["exp_avg"]
    s["exp_avg"] = (T(beta2) * m) + (T(1 - beta2) * g)
    return p - (T(o["lr"]) * sign(T, (T(beta1) * m) + (T(1 - beta1) * g)))


BY_HAND = {"Lion": ByHand(lion_by_hand, {"weight_decay": 2.2}, {"lr": 0.3, "betas": (0.65, 0.6)})}
