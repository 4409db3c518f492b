"""Muon without its products, whose bits are NumPy's: the direction is divided by its length."""

from __future__ import annotations

import math

from by_hand.single import ByHand, decayed, tree

ROWS, COLUMNS = 6, 5


def direction(T, g, s, o):
    b = (T(o["momentum"]) * s["momentum_buffer"]) + (T(1 - o["momentum"]) * g)
    return ((T(1 - o["momentum"]) * g) + (T(o["momentum"]) * b)) if o["nesterov"] else b, b


def length(T, rows, o, t):
    norm = math.sqrt(tree(float(direction(T, g, s, o)[0]) ** 2 for _, g, s in rows))
    return {"divisor": T(max(norm, o["eps"]))}


def muon_by_hand(T, p, g, s, o, t):
    u, s["momentum_buffer"] = direction(T, g, s, o)
    original = o["adjust_lr"] == "original"
    q = math.sqrt(ROWS / COLUMNS) if original else 0.2 * math.sqrt(ROWS)
    return decayed(T, p, o) - (T(o["lr"] * q) * (u / o["divisor"]))


BY_HAND = {
    "Muon": ByHand(
        muon_by_hand,
        {"nesterov": False, "adjust_lr": "original", "eps": 30.0, "weight_decay": 0.0},
        {"lr": 0.3, "momentum": 0.65, "weight_decay": 0.07, "ns_steps": 0},
        sums=length,
        shape=(ROWS, COLUMNS),
    )
}
