"""FTRL."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, first, maximum, minimum


def ftrl(p, g, s, h, t, T):
    """McMahan et al. 2013, FTRL-Proximal; weight_decay is the paper's lambda_2, lr its alpha."""
    n = first(T(h.initial_accumulator_value), s["accumulator"], t)
    s["accumulator"] = c = n + g * g
    r = np.sqrt(c)
    z = s["linear"]
    s["linear"] = z = z + (g - (r - np.sqrt(n)) * T(1 / h.lr) * p)
    numerator = minimum(maximum(z, -T(h.l1)), T(h.l1)) - z
    return numerator / (r * T(1 / h.lr) + T(h.beta / h.lr + h.weight_decay))


FTRL = {"lr": 0.1, "beta": 1.0, "l1": 0.0, "weight_decay": 0.0, "initial_accumulator_value": 0.0}
STATES = {"accumulator": None, "linear": None}
RULES = {"FTRL": Rule(ftrl, STATES, COMMON | FTRL, decoupled=True, own_l1=True)}
