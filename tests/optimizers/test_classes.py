"""Classes of optimizers: derived from one that has a rule, or without one, and how they are called."""

from __future__ import annotations

import copy
import inspect
from typing import Any

import numpy as np
import pytest
from cases import ALL_OPTIMIZERS, OPTIMIZERS

import instep


def test_a_rule_of_ones_own_keeps_its_docstring() -> None:
    class Mine(instep.SGD):
        """Mine: as for `SGD`."""

    class Bare(instep.SGD):
        pass

    assert Mine.__doc__ == "Mine: as for `SGD`."
    assert Bare.__doc__ is None
    assert inspect.signature(Bare) == inspect.signature(instep.SGD)
    w = np.ones(1)
    Mine(w, lr=1.0).step(np.ones(1))
    assert w[0] == 0.0


def test_a_rule_of_ones_own_keeps_its_constructor() -> None:
    class Mine(instep.SGD):
        def __init__(self, params: Any, rate: float = 0.5) -> None:
            super().__init__(params, lr=rate)

    assert list(inspect.signature(Mine).parameters) == ["params", "rate"]
    w = np.ones(1)
    Mine(w).step(np.ones(1))
    assert w[0] == 0.5


class WithoutRule(instep.Optimizer):
    """For rules to be derived from it, too."""

    name = "without a rule"


class WithRule(WithoutRule, instep.Adam):
    def __init__(self, params: Any, **more: Any) -> None:
        super().__init__(params, lr=0.25, **more)


@pytest.mark.parametrize("arguments", [{}, {"lr": 0.1}, {"unknown": 1}])
@pytest.mark.parametrize(
    ("made", "do"), [(instep.Optimizer, "use"), (WithoutRule, "derive it from")]
)
def test_what_the_rules_have_in_common_is_no_rule(made: Any, do: str, arguments: Any) -> None:
    with pytest.raises(TypeError) as caught:
        made(np.ones(1), **arguments)
    told, _, names = str(caught.value).rpartition(" of ")
    path = f"{made.__module__}.{made.__name__}"
    assert told == f"{path} must have an update rule, got none; {do} one"
    assert sorted(names.split(", ")) == sorted(rule.__name__ for rule in ALL_OPTIMIZERS)


def test_a_rule_can_be_derived_from_a_class_without_one() -> None:
    optimizer = WithRule(np.ones(1), weight_decay=0.5)
    assert (optimizer.lr, optimizer.weight_decay, optimizer.betas) == (0.25, 0.5, (0.9, 0.999))
    optimizer.step(np.ones(1))
    assert optimizer.params["0"][0] < 1.0
    twin = copy.deepcopy(optimizer)
    assert (type(twin), twin.lr, twin.name) == (WithRule, 0.25, "without a rule")


@pytest.mark.parametrize("rule", OPTIMIZERS)
def test_a_class_of_any_rule_is_called_alike(rule: type[instep.Optimizer]) -> None:
    """As `Optimizer` itself says: type checkers go by that, for ``type[instep.Optimizer]``."""
    said = inspect.signature(instep.Optimizer).parameters
    more = {name: p.default for name, p in said.items() if name not in ("params", "lr")}
    optimizer = rule(np.ones(1), 0.5, **more)
    assert optimizer.lr == 0.5
    assert optimizer.weight_decay == 0.0
    assert said.keys() <= inspect.signature(rule).parameters.keys()


def test_a_rule_without_hyperparameters_of_its_own_needs_no_constructor() -> None:
    class Plain(instep.Optimizer):
        _rule = "adam"
        _torch = None
        betas, eps, amsgrad = instep.Adam.betas, instep.Adam.eps, instep.Adam.amsgrad
        eps_hat, clip_update = instep.Adam.eps_hat, instep.Adam.clip_update

        def __init__(self, params: Any, **shared: Any) -> None:
            fixed = {"lr": 0.5, "betas": (0.9, 0.999), "eps": 1e-8, "amsgrad": False}
            fixed |= {"eps_hat": False, "clip_update": None}
            self._set_up(params, fixed, weight_decay=0.0, **shared)

    with pytest.raises(
        TypeError, match=r"an argument of Plain must be one of weight_decay, l1, .*, got 'lr'"
    ):
        Plain(np.ones(1), lr=1.0)
    w, v = np.ones(2), np.ones(2)
    Plain(w, l1=0.5).step(np.full(2, 0.1))
    instep.Adam(v, lr=0.5, l1=0.5).step(np.full(2, 0.1))
    assert w.tobytes() == v.tobytes()
