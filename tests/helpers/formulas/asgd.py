"""ASGD."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, power


def asgd(p, g, s, h, t, T):
    """Polyak & Juditsky 1992, with torch's rates."""
    eta, mu = (h.lr, 1.0) if t == 1 else (s["eta"], s["mu"])
    h.rate = eta
    p = p * T(1 - h.lambd * eta)
    p = p - T(eta) * g
    a = s["ax"]
    s["ax"] = p if mu == 1 else a + T(mu) * (p - a)
    s["eta"] = h.lr / power(1 + h.lambd * h.lr * t, h.alpha)
    s["mu"] = 1 / (t - h.t0 if t - h.t0 > 1 else 1)
    return p


def average(p, s, h, T):
    return np.array(s["ax"])


ASGD = {"lr": 1e-2, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6}
RULES = {
    "ASGD": Rule(
        asgd,
        {"ax": None},
        COMMON | ASGD,
        scalars={"eta": None, "mu": None},
        average=average,
    )
}
