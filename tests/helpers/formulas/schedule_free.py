"""ScheduleFreeSGD and ScheduleFreeAdamW."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, first, power


def share(s, h, t):
    """The share of z in the average."""
    s["lr_max"] = most = max(s["lr_max"], h.lr)
    weight = power(float(t), h.r) * power(most, h.weight_lr_power)
    s["weight_sum"] += weight
    return weight / s["weight_sum"] if s["weight_sum"] else 0.0


def moved(y, z, u, s, h, t, b, T):
    """Defazio et al. 2024; y is the parameter."""
    c = share(s, h, t)
    if h.weight_decay:
        u = u + T(h.weight_decay) * y
    y = y + T(c) * (z - y)
    y = y - T(h.lr * (1 - b * (1 - c))) * u
    s["z"] = z - T(h.lr) * u
    return y


def schedule_free_sgd(p, g, s, h, t, T):
    return moved(p, first(p, s["z"], t), g, s, h, t, h.momentum, T)


def schedule_free_adamw(p, g, s, h, t, T):
    z = first(p, s["z"], t)
    beta1, beta2 = h.betas
    s["exp_avg_sq"] = v = T(beta2) * s["exp_avg_sq"] + T(1 - beta2) * (g * g)
    u = g / (np.sqrt(v) * T(1 / math.sqrt(1 - beta2**t)) + T(h.eps))
    return moved(p, z, u, s, h, t, beta1, T)


def average(p, s, h, T):
    b = h.momentum if hasattr(h, "momentum") else h.betas[0]
    return p + T(1 - 1 / b) * (s["z"] - p)


WEIGHTS = {"r": 0.0, "weight_lr_power": 2.0}
SCALARS = {"lr_max": None, "weight_sum": None}
RULES = {
    "ScheduleFreeSGD": Rule(
        schedule_free_sgd,
        {"z": None},
        COMMON | {"lr": 1.0, "momentum": 0.9} | WEIGHTS,
        decoupled=True,
        scalars=SCALARS,
        average=average,
    ),
    "ScheduleFreeAdamW": Rule(
        schedule_free_adamw,
        {"z": None, "exp_avg_sq": None},
        COMMON | {"lr": 2.5e-3, "betas": (0.9, 0.999), "eps": 1e-8} | WEIGHTS,
        decoupled=True,
        scalars=SCALARS,
        average=average,
    ),
}
