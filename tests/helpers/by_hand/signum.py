"""Signum."""

from __future__ import annotations

from by_hand.single import ByHand, decayed, sign


def signum_by_hand(T, p, g, s, o, t):
    p, mu, b = decayed(T, p, o), o["momentum"], g
    if mu:
        b = s["momentum_buffer"] = (T(mu) * s["momentum_buffer"]) + (T(1 - mu) * g)
    return p - (T(o["lr"]) * sign(T, b))


OPTIONS = {"momentum": 0.0, "weight_decay": 2.2}
BY_HAND = {"Signum": ByHand(signum_by_hand, OPTIONS, {"lr": 0.3, "momentum": 0.65})}
