"""RMSprop."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, decayed, maximum


def rmsprop(p, g, s, h, t, T):
    """Tieleman & Hinton 2012; centered: Graves 2013."""
    if h.decoupled_weight_decay:
        p = decayed(p, h, T)
    v = s["square_avg"]
    if h.initial_square_avg and t == 1:
        v = T(h.initial_square_avg)
    s["square_avg"] = u = T(h.alpha) * v + T(1 - h.alpha) * (g * g)
    if h.centered:
        s["grad_avg"] = a = T(h.alpha) * s["grad_avg"] + T(1 - h.alpha) * g
        u = maximum(u - a * a, T(0))  # rounding can take the variance below zero
    d = np.sqrt(u + T(h.eps)) if h.eps_inside_sqrt else np.sqrt(u) + T(h.eps)
    if "momentum_buffer" not in s:
        return p - T(h.lr) * (g / d)
    if h.lr_in_velocity:
        s["momentum_buffer"] = b = T(h.momentum) * s["momentum_buffer"] + T(h.lr) * (g / d)
        return p - b
    s["momentum_buffer"] = b = T(h.momentum) * s["momentum_buffer"] + g / d
    return p - T(h.lr) * b


RMSPROP = {"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "momentum": 0.0, "initial_square_avg": 0.0}
RMSPROP |= {"centered": False, "eps_inside_sqrt": False, "lr_in_velocity": False}
RMSPROP |= {"decoupled_weight_decay": False}
STATES = {"square_avg": None, "grad_avg": "centered", "momentum_buffer": "momentum"}
RULES = {"RMSprop": Rule(rmsprop, STATES, COMMON | RMSPROP)}
