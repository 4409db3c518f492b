"""Signum; SignSGD is Signum without momentum."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, decayed


def signum(p, g, s, h, t, T):
    """Bernstein et al. 2018: the sign of the gradient's average, or of the gradient."""
    p = decayed(p, h, T)
    if "momentum_buffer" not in s:
        return p - T(h.lr) * np.sign(g)
    s["momentum_buffer"] = b = T(h.momentum) * s["momentum_buffer"] + T(1 - h.momentum) * g
    return p - T(h.lr) * np.sign(b)


SIGNUM = {"lr": 1e-4, "momentum": 0.9}
STATES = {"momentum_buffer": "momentum"}
RULES = {"Signum": Rule(signum, STATES, COMMON | SIGNUM, decoupled=True)}
