"""Prodigy."""

from __future__ import annotations

import math

from by_hand.single import ByHand, root, size, tree


def known(s, o):
    """d, d_max, the numerator, k, the step size and its share, before the step."""
    k = s["k"] + 1
    d, most, n = (s["d"], s["d_max"], s["d_numerator"]) if k > 1 else (o["d0"], o["d0"], 0.0)
    e = d * o["lr"]
    if o["use_bias_correction"]:
        beta1, beta2 = o["betas"]
        e = e * (math.sqrt(1 - math.pow(beta2, k)) / (1 - math.pow(beta1, k)))
    return d, most, n, k, e, d / o["d0"] * e


def kept(o):
    return o["beta3"] if o["beta3"] is not None else math.sqrt(o["betas"][1])


def summed(T, g, s, o):
    """The new s."""
    d, _, _, _, _, share = known(s, o)
    factor = d / o["d0"] * d if o["safeguard_warmup"] else share
    return (T(kept(o)) * s["s"]) + (T(factor) * g)


def sums(T, rows, o, t):
    def start(p, s):
        return p if t == 1 else s["p0"]

    return {
        "of_terms": tree(float(g * (start(p, s) - p)) for p, g, s in rows),
        "of_sums": tree(float(size(summed(T, g, s, o))) for _, g, s in rows),
    }


def prodigy_by_hand(T, p, g, s, o, t):
    beta1, beta2 = o["betas"]
    d, most, n, k, e, share = known(s, o)
    s["s"] = summed(T, g, s, o)
    s["p0"] = p if t == 1 else s["p0"]
    s["exp_avg"] = m = (T(beta1) * s["exp_avg"]) + (T(d * (1 - beta1)) * g)
    s["exp_avg_sq"] = v = (T(beta2) * s["exp_avg_sq"]) + (T(d * d * (1 - beta2)) * (g * g))
    n = kept(o) * n + share * o["of_terms"]
    hat = o["d_coef"] * n / o["of_sums"]
    s["d_max"] = max(most, hat)
    s["d"] = min(s["d_max"], (max(d, hat) if d == o["d0"] else d) * o["growth_rate"])
    s["d_numerator"], s["k"], o["rate"] = n, k, e
    if o["weight_decay"]:
        p = p * T(1 - o["weight_decay"] * e)
    return p - ((T(e) * m) / (root(T, v) + T(s["d"] * o["eps"])))


BY_HAND = {
    "Prodigy": ByHand(
        prodigy_by_hand,
        {"use_bias_correction": True, "safeguard_warmup": True, "beta3": 0.7, "growth_rate": 1.6},
        {
            "lr": 0.8,
            "betas": (0.65, 0.6),
            "eps": 1e-2,
            "weight_decay": 0.07,
            "d0": 0.3,
            "d_coef": 1.2,
        },
        steps=4,
        sums=sums,
    )
}
