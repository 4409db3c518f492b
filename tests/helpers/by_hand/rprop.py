"""Rprop: with these numbers steps grow, shrink, and stop at either end."""

from __future__ import annotations

from by_hand.single import ByHand, sign


def rprop_by_hand(T, p, g, s, o, t):
    (smaller, larger), (low, high) = o["etas"], o["step_sizes"]
    agreement = sign(T, g) * sign(T, s["prev"])
    k = T(o["lr"]) if t == 1 else s["step_size"]
    if agreement > 0:
        k = k * T(larger)
    elif agreement < 0:
        k, g = k * T(smaller), T(0)
    k = s["step_size"] = min(max(k, T(low)), T(high))
    s["prev"] = g
    return p - (sign(T, g) * k)


NUMBERS = {"lr": 0.3, "etas": (0.65, 1.3), "step_sizes": (0.15, 0.45)}
BY_HAND = {"Rprop": ByHand(rprop_by_hand, {}, NUMBERS, steps=5)}
