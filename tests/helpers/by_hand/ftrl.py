"""FTRL."""

from __future__ import annotations

from by_hand.single import ByHand, root


def ftrl_by_hand(T, p, g, s, o, t):
    lr, l1 = o["lr"], T(o["l1"])
    n = T(o["initial_accumulator_value"]) if t == 1 else s["accumulator"]
    c = s["accumulator"] = n + (g * g)
    sigma = (root(T, c) - root(T, n)) * T(1 / lr)
    z = s["linear"] = s["linear"] + (g - (sigma * p))
    top = min(max(z, -l1), l1) - z
    return top / ((root(T, c) * T(1 / lr)) + T((o["beta"] / lr) + o["weight_decay"]))


OPTIONS = {"l1": 0.4, "weight_decay": 2.2, "initial_accumulator_value": 0.3}
BY_HAND = {"FTRL": ByHand(ftrl_by_hand, OPTIONS, {"lr": 0.3, "beta": 0.7})}
