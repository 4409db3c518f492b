"""Adagrad."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, first


def adagrad(p, g, s, h, t, T):
    """Duchi, Hazan & Singer 2011."""
    s["sum"] = v = first(T(h.initial_accumulator_value), s["sum"], t) + g * g
    d = np.sqrt(v + T(h.eps)) if h.eps_inside_sqrt else np.sqrt(v) + T(h.eps)
    return p - T(h.lr / (1 + (t - 1) * h.lr_decay)) * (g / d)


ADAGRAD = {"lr": 1e-2, "lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 1e-10}
ADAGRAD |= {"eps_inside_sqrt": False}
RULES = {"Adagrad": Rule(adagrad, {"sum": None}, COMMON | ADAGRAD)}
