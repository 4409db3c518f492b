"""Prodigy."""

from __future__ import annotations

import math

import numpy as np

from formulas.rule import COMMON, Rule, first
from formulas.sums import total


def factors(h, d, e):
    """What the gradient is multiplied by in m, v and s, in double."""
    beta1, beta2 = h.betas
    of_sum = d / h.d0 * d if h.safeguard_warmup else d / h.d0 * e
    return d * (1 - beta1), d * d * (1 - beta2), of_sum


def joint(parts):
    """Prepare the step of all parameters, and return the new scalar states."""
    old = parts[0].s
    k = old["k"] + 1
    takers = [part for part in parts if part.h.lr != 0]
    h = (takers or parts)[0].h
    beta1, beta2 = h.betas
    beta3 = math.sqrt(beta2) if h.beta3 is None else h.beta3
    d, d_max, numerator = old["d"], old["d_max"], old["d_numerator"]
    if k == 1:
        d, d_max, numerator = h.d0, h.d0, 0.0
    bias = math.sqrt(1 - beta2**k) / (1 - beta1**k) if h.use_bias_correction else 1.0
    e = d * h.lr * bias
    _, _, of_sum = factors(h, d, e)
    terms, sums = [], []
    for part in takers:
        T = part.T
        p0 = first(part.p, part.s["p0"], part.t)
        terms.append(part.g * (p0 - part.p))
        sums.append(np.abs(T(beta3) * part.s["s"] + T(of_sum) * part.g))
    of_terms, denominator = total(*terms), total(*sums)
    new = {"d": d, "d_max": d_max, "d_numerator": numerator, "k": k}
    moves = bool(takers) and denominator != 0
    if moves:
        n = beta3 * numerator + d / h.d0 * e * of_terms
        d_hat = float(np.float64(h.d_coef * n) / denominator)
        grown = d_hat if d == h.d0 and d_hat > d else d
        new["d_numerator"] = n
        new["d_max"] = d_hat if d_hat > d_max else d_max
        grown = grown * h.growth_rate
        new["d"] = grown if grown < new["d_max"] else new["d_max"]
    for part in parts:
        part.h.moves, part.h.d, part.h.e, part.h.beta3_now = moves, d, e, beta3
        part.h.new_d = new["d"]
        part.h.rate = e if moves and part.h.lr != 0 else None
    return new


def prodigy(p, g, s, h, t, T):
    """Mishchenko & Defazio 2024; `joint` has what comes before."""
    beta1, beta2 = h.betas
    s["p0"] = first(p, s["p0"], t)
    if h.lr == 0:
        return p
    of_mean, of_square, of_sum = factors(h, h.d, h.e)
    s["exp_avg"] = m = T(beta1) * s["exp_avg"] + T(of_mean) * g
    s["exp_avg_sq"] = v = T(beta2) * s["exp_avg_sq"] + T(of_square) * (g * g)
    s["s"] = T(h.beta3_now) * s["s"] + T(of_sum) * g
    if not h.moves:
        return p
    if h.weight_decay:
        p = p * T(1 - h.weight_decay * h.e)
    return p - T(h.e) * m / (np.sqrt(v) + T(h.new_d * h.eps))


PRODIGY = {"lr": 1.0, "betas": (0.9, 0.999), "beta3": None, "eps": 1e-8}
PRODIGY |= {"use_bias_correction": False, "safeguard_warmup": False}
PRODIGY |= {"d0": 1e-6, "d_coef": 1.0, "growth_rate": math.inf}
RULES = {
    "Prodigy": Rule(
        prodigy,
        {"exp_avg": None, "exp_avg_sq": None, "s": None, "p0": None},
        COMMON | PRODIGY,
        decoupled=True,
        scalars=dict.fromkeys(("d", "d_max", "d_numerator", "k")),
        joint=joint,
    )
}
