"""Adam and AdamW."""

from __future__ import annotations

import math

from by_hand.single import ByHand, decayed, tree


def clipped(T, rows, o, t):
    """A lower rate where the updates are too long."""
    if o["clip_update"] is None:
        return {}
    beta2 = o["betas"][1]
    terms = []
    for _, g, s in rows:
        v = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
        least = T(o["eps"]) * T(o["eps"])
        terms.append((g * g) / max(v * T(1 / (1 - math.pow(beta2, t))), least))
    return {"rate": o["lr"] / max(1.0, math.sqrt(tree(terms) / len(rows)) / o["clip_update"])}


def adam_by_hand(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    w = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    if o["amsgrad"]:
        w = s["max_exp_avg_sq"] = max(s["max_exp_avg_sq"], w)
    if o["eps_hat"]:
        rate = (o.get("rate", o["lr"]) * math.sqrt(1 - math.pow(beta2, t))) / (
            1 - math.pow(beta1, t)
        )
        return p - ((T(rate) * m) / (T(math.sqrt(w)) + T(o["eps"])))
    top = T(o.get("rate", o["lr"]) / (1 - math.pow(beta1, t))) * m
    bottom = (T(math.sqrt(w)) * T(1 / math.sqrt(1 - math.pow(beta2, t)))) + T(o["eps"])
    return p - (top / bottom)


def adamw_by_hand(T, p, g, s, o, t):
    o = {**o, "lr": o.get("rate", o["lr"])}
    return adam_by_hand(T, decayed(T, p, o), g, s, o, t)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
OPTIONS = {"amsgrad": True, "eps_hat": True, "clip_update": 0.7}
BY_HAND = {
    "Adam": ByHand(adam_by_hand, OPTIONS, NUMBERS, sums=clipped),
    "AdamW": ByHand(adamw_by_hand, OPTIONS, NUMBERS | {"weight_decay": 2.2}, sums=clipped),
}
