"""ASGD."""

from __future__ import annotations

import math

from by_hand.single import ByHand


def asgd_by_hand(T, p, g, s, o, t):
    eta, mu = (s["eta"], s["mu"]) if t > 1 else (o["lr"], 1.0)
    o["rate"] = eta
    p = (p * T(1 - o["lambd"] * eta)) - (T(eta) * g)
    s["ax"] = p if mu == 1 else s["ax"] + (T(mu) * (p - s["ax"]))
    s["eta"] = o["lr"] / math.pow(1 + o["lambd"] * o["lr"] * t, o["alpha"])
    s["mu"] = 1 / max(1, t - o["t0"])
    return p


BY_HAND = {
    "ASGD": ByHand(asgd_by_hand, {"t0": 1.0}, {"lr": 0.3, "lambd": 0.7, "alpha": 0.9}, steps=5)
}
