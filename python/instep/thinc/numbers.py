"""The numbers of a step, from those that thinc's optimizers have."""

from __future__ import annotations

from typing import Any

from instep.optimizers.groups import interval_of
from instep.optimizers.hyperparameters import as_float
from instep.optimizers.settings import CLIP_NORM
from instep.rules import Adam

__all__ = ["NUMBERS", "planned"]

# The numbers of a step by thinc's names, and what they may be.
NUMBERS = {
    "learn_rate": interval_of(Adam, "lr"),
    "b1": interval_of(Adam, "beta1"),
    "b2": interval_of(Adam, "beta2"),
    "eps": interval_of(Adam, "eps"),
    "L2": interval_of(Adam, "weight_decay"),
}

_ARGUMENTS = {"b1": "beta1", "b2": "beta2"}  # as a config and a program write them


def planned(
    learn_rate: Any,
    b1: Any,
    b2: Any,
    eps: Any,
    l2: Any,
    grad_clip: Any,
    lr_scale: float,
    use_radam: bool,
    l2_is_weight_decay: bool,
) -> tuple[str, list[dict[str, float]], float | None, float]:
    """Return the rule of a step, its numbers, the limit of the norm, and the L2 term before the norm."""
    found = zip(NUMBERS.items(), (learn_rate, b1, b2, eps, l2), strict=True)
    lr, b1, b2, eps, l2 = [
        as_float(value, interval, _ARGUMENTS.get(name, name)) for (name, interval), value in found
    ]
    clip_norm = as_float(grad_clip, CLIP_NORM, "grad_clip") if grad_clip else None
    lr *= lr_scale
    if use_radam or (b1 > 0 and b2 > 0):
        rule = "radam" if use_radam else "adam"
        numbers = {"lr": lr, "beta1": b1, "beta2": b2, "eps": eps}
    elif b2 > 0:
        raise NotImplementedError(
            f"beta1 must be greater than 0 if beta2 is, got {b1!r} and {b2!r}; with both 0, the "
            "step is that of SGD"
        )
    else:
        rule, numbers = "sgd", {"lr": lr, "momentum": 0.0, "dampening": 0.0}
    if l2 and l2_is_weight_decay:
        numbers |= {"weight_decay": l2, "decay_after": True}
    return rule, [numbers], clip_norm, 0.0 if l2_is_weight_decay else l2
