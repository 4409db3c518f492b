"""LAMB."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, root, tree


def updated(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    m = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    v = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    bottom = (root(T, v) * T(1 / math.sqrt(corrected(beta2, t)))) + T(o["eps"])
    u = (T(1 / corrected(beta1, t)) * m) / bottom
    if o["weight_decay"]:
        u = u + (T(o["weight_decay"]) * p)
    return u, m, v


def ratio(T, rows, o, t):
    of_p = tree(float(p) ** 2 for p, _, _ in rows)
    of_u = tree(float(updated(T, *row, o, t)[0]) ** 2 for row in rows)
    q = math.sqrt(of_p) / math.sqrt(of_u) if of_p and of_u else 1.0
    return {"q": q if o["trust_clip"] is None else min(q, o["trust_clip"])}


def lamb_by_hand(T, p, g, s, o, t):
    u, s["exp_avg"], s["exp_avg_sq"] = updated(T, p, g, s, o, t)
    return p - (T(o["lr"] * (o["q"] if o["trust_ratio"] else 1.0)) * u)


BY_HAND = {
    "LAMB": ByHand(
        lamb_by_hand,
        {"trust_ratio": False, "trust_clip": 0.9, "weight_decay": 0.0},
        {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2, "weight_decay": 0.07},
        sums=ratio,
    )
}
