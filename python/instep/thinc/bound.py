"""The weights of a key, bound to `Steps`."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from instep.optimizers.steps import Steps
from instep.thinc.host import to_numpy

__all__ = ["ALONE", "Bound", "layout_of", "references", "state_like"]


class Bound:
    """The weights of a key, bound to steps of their own: keys may share weights."""

    __slots__ = ("average", "layout", "mom1", "mom2", "rule", "steps", "t", "weights")

    def __init__(
        self, key: object, weights: Any, rule: str, mom1: Any, mom2: Any, average: Any, t: int
    ) -> None:
        self.weights, self.rule, self.t = weights, rule, t
        self.mom1, self.mom2, self.average = mom1, mom2, average
        self.layout = layout_of(weights)
        self.steps = Steps()
        self.steps.add_group(rule, ["eps_hat"] if rule == "adam" else [])
        self.steps.append()
        states = {"exp_avg": mom1, "exp_avg_sq": mom2} if rule != "sgd" else {}
        states = {name: flat.reshape(weights.shape) for name, flat in states.items()}
        self.steps.bind(0, weights, states=states, average=average, t=t, name=str(key))


def layout_of(weights: Any) -> tuple[Any, ...]:
    """Where an array lies in memory, and how."""
    address = weights.__array_interface__["data"][0]
    return address, weights.shape, weights.strides, weights.dtype


def references(bound: Bound) -> int:
    """Count the references to a key's weights."""
    return sys.getrefcount(bound.weights)


def _of_ours(weights: Any) -> int:
    """Count the references to weights that nobody else holds."""
    bound = Bound("", weights, "sgd", None, None, None, 0)
    del weights
    return references(bound)


# By whether the weights are a view. Those of a model are a view or not, depending on how it was made.
ALONE = {
    False: _of_ours(np.zeros(1)),
    True: _of_ours(np.zeros((1, 1))[0]),
}


def state_like(old: Any, weights: Any) -> Any:
    """Return a state in the form that steps of these weights need; a copy if it has another form."""
    if old is None:
        return np.zeros(weights.shape, weights.dtype)
    array = np.ascontiguousarray(to_numpy(old), weights.dtype)
    return array if array.shape == weights.shape else array.reshape(weights.shape)
