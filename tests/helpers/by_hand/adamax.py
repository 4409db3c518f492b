"""Adamax."""

from __future__ import annotations

from by_hand.single import ByHand, corrected, size


def adamax_by_hand(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    m = s["exp_avg"] = (T(beta1) * s["exp_avg"]) + (T(1 - beta1) * g)
    u = s["exp_inf"] = max(T(beta2) * s["exp_inf"], size(g) + T(o["eps"]))
    return p - ((T(o["lr"] / corrected(beta1, t)) * m) / u)


NUMBERS = {"lr": 0.3, "betas": (0.65, 0.6), "eps": 1e-2}
BY_HAND = {"Adamax": ByHand(adamax_by_hand, {}, NUMBERS)}
