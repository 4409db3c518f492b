"""Adadelta."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule


def adadelta(p, g, s, h, t, T):
    """Zeiler 2012; lr is 1 in the paper."""
    u = s["acc_delta"]
    s["square_avg"] = v = T(h.rho) * s["square_avg"] + T(1 - h.rho) * (g * g)
    d = np.sqrt(u + T(h.eps)) / np.sqrt(v + T(h.eps)) * g
    s["acc_delta"] = T(h.rho) * u + T(1 - h.rho) * (d * d)
    return p - T(h.lr) * d


ADADELTA = {"lr": 1.0, "rho": 0.9, "eps": 1e-6}
STATES = {"square_avg": None, "acc_delta": None}
RULES = {"Adadelta": Rule(adadelta, STATES, COMMON | ADADELTA)}
