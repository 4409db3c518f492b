"""Muon."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, decayed
from formulas.sums import total_of_squares


def orthogonal(u, h, T):
    """Newton-Schulz iterations; the bits of a product are those of NumPy's matmul."""
    turned = u.shape[0] > u.shape[1]
    norm = math.sqrt(total_of_squares(u))
    x = np.ascontiguousarray(u.T if turned else u) / T(h.eps if h.eps > norm else norm)
    a, b, c = (T(number) for number in h.ns_coefficients)
    for _ in range(int(h.ns_steps)):
        square = x @ x.T
        x = a * x + (b * square + c * (square @ square)) @ x
    return x.T if turned else x


def muon(p, g, s, h, t, T):
    """Jordan et al. 2024, with the factor of Liu et al. 2025."""
    s["momentum_buffer"] = b = T(h.momentum) * s["momentum_buffer"] + T(1 - h.momentum) * g
    u = T(1 - h.momentum) * g + T(h.momentum) * b if h.nesterov else b
    rows, columns = u.shape
    q = 0.2 * math.sqrt(max(rows, columns))
    if h.adjust_lr == "original":
        q = math.sqrt(rows / columns if rows > columns > 0 else 1.0)
    p = decayed(p, h, T)
    return p - T(h.lr * q) * (orthogonal(u, h, T) if u.size else u)


MUON = {"lr": 1e-3, "momentum": 0.95, "nesterov": True, "weight_decay": 0.1, "ns_steps": 5}
MUON |= {"ns_coefficients": (3.4445, -4.775, 2.0315), "eps": 1e-7, "adjust_lr": "match_rms_adamw"}
RULES = {
    "Muon": Rule(muon, {"momentum_buffer": None}, COMMON | MUON, decoupled=True, matrices=True)
}
