"""SGD and Momentum."""

from __future__ import annotations

from by_hand.single import ByHand, decayed


def sgd_by_hand(T, p, g, s, o, t):
    if o["decoupled_weight_decay"]:
        p = decayed(T, p, o)
    lr, mu, b = T(o["lr"]), T(o["momentum"]), s.get("momentum_buffer")
    if b is None:
        return p - lr * g
    if o["lr_in_velocity"]:
        b = s["momentum_buffer"] = (mu * b) + (lr * g)
        if o["nesterov"]:
            return p - ((mu * b) + (lr * g))
        return p - b
    b = g if t == 1 else (mu * b) + (T(1 - o["dampening"]) * g)
    s["momentum_buffer"] = b
    return p - (lr * (g + (mu * b))) if o["nesterov"] else p - (lr * b)


OPTIONS = {
    "dampening": 0.6,
    "nesterov": True,
    "lr_in_velocity": True,
    "decoupled_weight_decay": True,
}
BY_HAND = {
    "SGD": ByHand(sgd_by_hand, OPTIONS, {"lr": 0.3, "momentum": 0.9}),
    "Momentum": ByHand(sgd_by_hand, OPTIONS, {"lr": 0.3}),
}
