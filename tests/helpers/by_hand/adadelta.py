"""Adadelta."""

from __future__ import annotations

from by_hand.single import ByHand, root


def adadelta_by_hand(T, p, g, s, o, t):
    rho, rest, eps = T(o["rho"]), T(1 - o["rho"]), T(o["eps"])
    v = s["square_avg"] = (rho * s["square_avg"]) + (rest * (g * g))
    d = (root(T, s["acc_delta"] + eps) / root(T, v + eps)) * g
    s["acc_delta"] = (rho * s["acc_delta"]) + (rest * (d * d))
    return p - (T(o["lr"]) * d)


BY_HAND = {"Adadelta": ByHand(adadelta_by_hand, {}, {"lr": 0.3, "rho": 0.65, "eps": 1e-2})}
