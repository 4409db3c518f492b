"""RMSprop."""

from __future__ import annotations

import math

from by_hand.single import ByHand, decayed


def rmsprop_by_hand(T, p, g, s, o, t):
    alpha, rest, eps, lr = T(o["alpha"]), T(1 - o["alpha"]), T(o["eps"]), T(o["lr"])
    if o["decoupled_weight_decay"]:
        p = decayed(T, p, o)
    c = o["initial_square_avg"]
    v = T(c) if c and t == 1 else s["square_avg"]
    u = s["square_avg"] = (alpha * v) + (rest * (g * g))
    if o["centered"]:
        a = s["grad_avg"] = (alpha * s["grad_avg"]) + (rest * g)
        u = max(u - (a * a), T(0))
    d = T(math.sqrt(u + eps)) if o["eps_inside_sqrt"] else T(math.sqrt(u)) + eps
    if "momentum_buffer" not in s:
        return p - (lr * (g / d))
    if o["lr_in_velocity"]:
        b = s["momentum_buffer"] = (T(o["momentum"]) * s["momentum_buffer"]) + (lr * (g / d))
        return p - b
    b = s["momentum_buffer"] = (T(o["momentum"]) * s["momentum_buffer"]) + (g / d)
    return p - (lr * b)


BY_HAND = {
    "RMSprop": ByHand(
        rmsprop_by_hand,
        {
            "centered": True,
            "eps_inside_sqrt": True,
            "lr_in_velocity": True,
            "initial_square_avg": 0.7,
            "decoupled_weight_decay": True,
        },
        {"eps": 1e-2, "momentum": 0.7},
    ),
}
