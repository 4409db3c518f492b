"""SGD and Momentum."""

from __future__ import annotations

from formulas.rule import COMMON, Rule, decayed


def sgd(p, g, s, h, t, T):
    """Plain, heavy-ball or Nesterov; by default lr stays outside the buffer, as in PyTorch."""
    if h.decoupled_weight_decay:
        p = decayed(p, h, T)
    if "momentum_buffer" not in s:
        return p - T(h.lr) * g
    b = s["momentum_buffer"]
    if h.lr_in_velocity:
        s["momentum_buffer"] = b = T(h.momentum) * b + T(h.lr) * g
        return p - (T(h.momentum) * b + T(h.lr) * g) if h.nesterov else p - b
    b = g if t == 1 else T(h.momentum) * b + T(1 - h.dampening) * g
    s["momentum_buffer"] = b
    d = g + T(h.momentum) * b if h.nesterov else b
    return p - T(h.lr) * d


SGD = {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "nesterov": False, "lr_in_velocity": False}
SGD |= {"decoupled_weight_decay": False}
STATES = {"momentum_buffer": "momentum"}
RULES = {
    "SGD": Rule(sgd, STATES, COMMON | SGD),
    "Momentum": Rule(sgd, STATES, COMMON | SGD | {"momentum": 0.9}),
}
