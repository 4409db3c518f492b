"""Lion."""

from __future__ import annotations

import numpy as np

from formulas.rule import COMMON, Rule, decayed


def lion(p, g, s, h, t, T):
    """Chen et al. 2023: the sign of one average of the gradient, while another is kept."""
    p = decayed(p, h, T)
    beta1, beta2 = h.betas
    m = s["exp_avg"]
    c = T(beta1) * m + T(1 - beta1) * g
    s["exp_avg"] = T(beta2) * m + T(1 - beta2) * g
    return p - T(h.lr) * np.sign(c)


LION = {"lr": 1e-4, "betas": (0.9, 0.99)}
RULES = {"Lion": Rule(lion, {"exp_avg": None}, COMMON | LION, decoupled=True)}
