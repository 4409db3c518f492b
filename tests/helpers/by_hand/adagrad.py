"""Adagrad."""

from __future__ import annotations

from by_hand.single import ByHand, root


def adagrad_by_hand(T, p, g, s, o, t):
    eps, n = T(o["eps"]), t - 1
    before = T(o["initial_accumulator_value"]) if t == 1 else s["sum"]
    v = s["sum"] = before + (g * g)
    d = root(T, v + eps) if o["eps_inside_sqrt"] else root(T, v) + eps
    return p - (T(o["lr"] / (1 + (n * o["lr_decay"]))) * (g / d))


OPTIONS = {"lr_decay": 0.7, "initial_accumulator_value": 0.3, "eps_inside_sqrt": True}
BY_HAND = {"Adagrad": ByHand(adagrad_by_hand, OPTIONS, {"lr": 0.3, "eps": 1e-2})}
