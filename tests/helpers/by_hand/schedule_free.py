"""ScheduleFreeSGD and ScheduleFreeAdamW."""

from __future__ import annotations

import math

from by_hand.single import ByHand, corrected, root


def free_by_hand(T, y, u, s, o, t, b):
    z = s["z"] if t > 1 else y
    s["lr_max"] = max(s["lr_max"], o["lr"])
    weight = math.pow(t, o["r"]) * math.pow(s["lr_max"], o["weight_lr_power"])
    s["weight_sum"] += weight
    c = weight / s["weight_sum"]
    if o["weight_decay"]:
        u = u + (T(o["weight_decay"]) * y)
    y = y + (T(c) * (z - y))
    y = y - (T(o["lr"] * (1 - b * (1 - c))) * u)
    s["z"] = z - (T(o["lr"]) * u)
    return y


def free_sgd_by_hand(T, y, g, s, o, t):
    return free_by_hand(T, y, g, s, o, t, o["momentum"])


def free_adamw_by_hand(T, y, g, s, o, t):
    beta1, beta2 = o["betas"]
    v = s["exp_avg_sq"] = (T(beta2) * s["exp_avg_sq"]) + (T(1 - beta2) * (g * g))
    bottom = (root(T, v) * T(1 / math.sqrt(corrected(beta2, t)))) + T(o["eps"])
    return free_by_hand(T, y, g / bottom, s, o, t, beta1)


OPTIONS = {"weight_decay": 0.07, "r": 1.3}
BY_HAND = {
    "ScheduleFreeSGD": ByHand(free_sgd_by_hand, OPTIONS, {"lr": 0.3, "momentum": 0.65}),
    "ScheduleFreeAdamW": ByHand(
        free_adamw_by_hand, OPTIONS, {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
    ),
}
