"""What describes a rule, and the operations that NumPy lacks."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

# Hyperparameters of every rule.
COMMON = {
    "weight_decay": 0.0,
    "l1": 0.0,
    "decoupled_l1": False,
    "maximize": False,
    "clip_value": None,
}


# Not np.maximum and np.minimum, which return one or the other zero, depending on NumPy's loop.
def maximum(x, y):
    """The greater number, the first of equal numbers, NaN if either is NaN."""
    return np.where((x >= y) | np.isnan(x), x, y)


def minimum(x, y):
    """The smaller number, the first of equal numbers, NaN if either is NaN."""
    return np.where((x <= y) | np.isnan(x), x, y)


def first(a, b, t):
    """`a` at a parameter's first step, `b` later."""
    return np.broadcast_to(a, np.shape(b)) if t == 1 else b


def power(x, y):
    """`x` to the power of `y` as the C library has it: infinite if it is too large."""
    try:
        return x**y
    except OverflowError:
        return math.inf


def decayed(p, h, T):
    """The line of decoupled weight decay."""
    return p * T(1 - h.lr * h.weight_decay) if h.weight_decay else p


class Rule(NamedTuple):
    """A rule. It may set `h.rate`, the learning rate of decoupled L1, which is h.lr; None: the step has none."""

    update: Callable[..., Any]
    # Name -> the option that needs it; None: always there. In the order of `kinds`, which has how they may be stored.
    states: dict[str, str | None]
    defaults: dict[str, Any]
    # Whether weight_decay, and l1, are the rule's own, so that the gradient has no term of them.
    decoupled: bool = False  # or the option decoupled_weight_decay, where the rule has it
    own_l1: bool = False
    # States that are one double, a Python float in s: name -> the option that needs it.
    scalars: dict[str, str | None] = {}  # noqa: RUF012 - never changed
    none_is_off: tuple[str, ...] = ()  # options that are on unless they are None
    matrices: bool = False  # whether every parameter has two axes
    # For scalar states that all parameters share: called before the updates with what each update gets, as attributes
    # p, g, s, h, t, T; returns the new ones. It may set what the updates need in h.
    joint: Callable[..., dict[str, float]] | None = None

    # What averaged() shows, from p, s, h and T, if the rule has an average of its own.
    average: Callable[..., Any] | None = None

    def has(self, option: str | None, options: Mapping[str, Any]) -> bool:
        """Whether a state that needs this option is there: a number for which None stands, or anything but 0.

        A schedule counts as true: its state is there from the start, even if the schedule returns 0.
        """
        if option is None:
            return True
        return options[option] is not None if option in self.none_is_off else bool(options[option])

    def has_l2(self, h: Any) -> bool:
        """Whether the gradient has the term of weight_decay."""
        return not (self.decoupled or getattr(h, "decoupled_weight_decay", False))
