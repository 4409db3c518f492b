"""LARS."""

from __future__ import annotations

import math

from by_hand.single import ByHand, tree


def ratio(T, rows, o, t):
    of_p, of_g = (math.sqrt(tree(float(row[k]) ** 2 for row in rows)) for k in (0, 1))
    return {"q": o["trust_coefficient"] * of_p / (of_g + o["weight_decay"] * of_p + o["eps"])}


def lars_by_hand(T, p, g, s, o, t):
    if o["weight_decay"]:
        g = g + (T(o["weight_decay"]) * p)
    h = g * T(o["q"] if o["trust_ratio"] else 1.0)
    if "momentum_buffer" not in s:
        return p - (T(o["lr"]) * h)
    b = h if t == 1 else (T(o["momentum"]) * s["momentum_buffer"]) + (T(1 - o["dampening"]) * h)
    s["momentum_buffer"] = b
    return p - (T(o["lr"]) * (h + (T(o["momentum"]) * b) if o["nesterov"] else b))


BY_HAND = {
    "LARS": ByHand(
        lars_by_hand,
        {"trust_ratio": False, "nesterov": True, "dampening": 0.6, "momentum": 0.0},
        {"lr": 0.3, "momentum": 0.9, "trust_coefficient": 0.7, "eps": 1e-2, "weight_decay": 0.07},
        sums=ratio,
    )
}
