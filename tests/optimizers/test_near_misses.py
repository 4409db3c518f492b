"""Attributes that an optimizer doesn't have: what is said, and that looking for them breaks nothing."""

from __future__ import annotations

import copy
import inspect
import pickle
import re
from typing import Any

import numpy as np
import pytest
from cases import ALL_OPTIMIZERS

import instep
from instep.optimizers import near_misses

NOT_THERE = [
    (instep.Adam, "learning_rate", "; did you mean 'lr'?"),
    (instep.SGD, "step_size", "; did you mean 'lr'?"),
    (instep.AdamW, "momentum", "; did you mean 'betas'?"),
    (instep.Adam, "beta1", "; did you mean 'betas'?"),
    (instep.RMSprop, "epsilon", "; did you mean 'eps'?"),
    (instep.SGD, "epsilon", ""),
    (instep.SGD, "beta2", ""),
    (
        instep.Momentum,
        "zero_grad",
        "; a step takes its gradients as an argument, so there is nothing to set to zero",
    ),
    (instep.SGD, "iterations", "; did you mean 'step_count'?"),
    *[
        (
            instep.AdamW,
            name,
            ", which is fixed when the optimizer is made; to change it, make a new optimizer and load the "
            "state",
        )
        for name in near_misses._FIXED
    ],
]


@pytest.mark.parametrize(("rule", "name", "hint"), NOT_THERE)
def test_a_name_of_another_library_is_answered_with_the_name_here(
    rule: Any, name: str, hint: str
) -> None:
    optimizer = rule(np.ones(1))
    message = re.escape(f"{rule.__name__} has no attribute {name!r}{hint}")
    for refused in (
        lambda: getattr(optimizer, name),
        lambda: setattr(optimizer, name, 0.1),
        lambda: delattr(optimizer, name),
        lambda: getattr(rule, name),
    ):
        with pytest.raises(AttributeError, match=f"^{message}$"):
            refused()
    assert not hasattr(optimizer, name)
    assert name not in dir(optimizer)
    assert {"lr", "step", "__class__", "params"} <= set(dir(optimizer))


def test_what_is_told_of_is_there() -> None:
    meant = near_misses._MEANT
    assert all(any(hasattr(rule, right) for rule in ALL_OPTIMIZERS) for right in meant.values())
    assert "momentum" in dir(instep.SGD(np.ones(1)))
    assert instep.RMSprop(np.ones(1), momentum=0.5).momentum == 0.5
    arguments = inspect.signature(instep.AdamW).parameters
    there = set(dir(instep.AdamW(np.ones(1))))
    assert set(near_misses._FIXED) == arguments.keys() - there


class Own(instep.Adam):
    """With names of its own, of which instep would tell others."""

    def __init__(self, params: Any) -> None:
        super().__init__(params)
        self.learning_rate = 0.5

    @property
    def momentum(self) -> float:
        return 0.25


def test_a_class_of_ones_own_may_have_these_names() -> None:
    optimizer = Own(np.ones(1))
    for twin in (optimizer, copy.copy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert (twin.learning_rate, twin.momentum) == (0.5, 0.25)
        assert vars(twin) == {"learning_rate": 0.5}
    del optimizer.learning_rate
    with pytest.raises(AttributeError, match="Own has no attribute 'learning_rate'; did you"):
        del optimizer.learning_rate
    optimizer.zero_grad = lambda: None
    optimizer.zero_grad()


def test_attributes_that_are_there_are_found_as_in_any_object() -> None:
    """A ``__getattr__`` would slow down each of them."""
    for rule in ALL_OPTIMIZERS:
        assert not hasattr(rule, "__getattr__")
        assert rule.__getattribute__ is object.__getattribute__
        assert rule.__setattr__ is object.__setattr__


def test_probes_for_what_is_not_there_find_nothing() -> None:
    optimizer = instep.Adam(np.ones(1))
    for name in ("_repr_png_", "_ipython_canary_method_should_not_exist_", "__array__"):
        assert not hasattr(optimizer, name)
    for name, _ in inspect.getmembers(optimizer):
        assert name not in near_misses._MEANT or name == "momentum", name


def test_a_hyperparameter_in_which_groups_differ_is_no_attribute() -> None:
    optimizer = instep.Adam([{"params": np.ones(2)}, {"params": np.ones(3), "l1": 0.5}])
    assert not hasattr(optimizer, "l1")
    assert hasattr(optimizer, "lr")
    assert getattr(optimizer, "l1", None) is None
    assert {"lr", "betas"} <= {name for name, _ in inspect.getmembers(optimizer)}
    for kind in (AttributeError, ValueError):
        with pytest.raises(kind, match=r"param_groups\[k\]") as caught:
            _ = optimizer.l1
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (type(caught.value), str(caught.value))
    optimizer.l1 = 0.25
    assert optimizer.l1 == 0.25
