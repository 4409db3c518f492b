"""The rules that optax has, with the defaults of instep: whoever asks need not import JAX.

docs/semantics.md says where optax computes something else ("Where others differ").
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

# By the name in instep: optax's optimizer, from the module optax and the learning rate.
OPTAX: dict[str, Callable[..., Any]] = {
    "AdaBelief": lambda optax, lr: optax.adabelief(lr),
    "Adadelta": lambda optax, lr: optax.adadelta(lr),
    "Adagrad": lambda optax, lr: optax.adagrad(lr, initial_accumulator_value=0.0, eps=1e-10),
    "Adam": lambda optax, lr: optax.adam(lr),
    "AdamW": lambda optax, lr: optax.adamw(lr, weight_decay=1e-2),
    "Adamax": lambda optax, lr: optax.adamax(lr),
    "Adan": lambda optax, lr: optax.adan(lr),
    "AdEMAMix": lambda optax, lr: optax.contrib.ademamix(lr, alpha=2.0),
    "ADOPT": lambda optax, lr: optax.contrib.adopt(lr),
    "LAMB": lambda optax, lr: optax.lamb(lr, weight_decay=1e-2),
    "LARS": lambda optax, lr: optax.lars(lr, eps=1e-8),
    "Lion": lambda optax, lr: optax.lion(lr, weight_decay=0.0),
    "Momentum": lambda optax, lr: optax.sgd(lr, momentum=0.9),
    "NAdam": lambda optax, lr: optax.nadam(lr),
    "Prodigy": lambda optax, lr: optax.contrib.prodigy(lr),
    "RAdam": lambda optax, lr: optax.radam(lr),
    "RMSprop": lambda optax, lr: optax.rmsprop(lr, decay=0.99, eps_in_sqrt=False),
    "Rprop": lambda optax, lr: optax.rprop(lr),
    "ScheduleFreeAdamW": lambda optax, lr: optax.contrib.schedule_free_adamw(lr),
    "ScheduleFreeSGD": lambda optax, lr: optax.contrib.schedule_free_sgd(lr),
    "SGD": lambda optax, lr: optax.sgd(lr),
    "Signum": lambda optax, lr: optax.signum(lr),
    "Yogi": lambda optax, lr: optax.yogi(lr),
}
