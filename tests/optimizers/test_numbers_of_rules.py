"""Hyperparameters that only some rules have, or refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import instep
from instep import schedules


@pytest.mark.parametrize(
    ("rule", "options", "message"),
    [
        ("Rprop", {"decoupled_l1": True}, "False, got True, since no step of Rprop has the length"),
        ("FTRL", {"decoupled_l1": True}, "False, got True, since l1 is part of the rule"),
        ("FTRL", {"lr": 0.0}, "lr must be a finite number greater than 0, got 0.0"),
        ("Rprop", {"etas": (0.5, 1.0)}, r"etas\[1\] must be a finite number greater than 1, got 1"),
        ("Rprop", {"etas": (1.5, 2.0)}, r"etas\[0\] must be a number in \(0, 1\), got 1.5"),
        ("Rprop", {"step_sizes": (-1.0, 1.0)}, r"step_sizes\[0\] must be .* at least 0, got -1"),
        ("Rprop", {"step_sizes": (2.0, 1.0)}, r"the least .* and the largest, got \(2.0, 1.0\)"),
        ("ADOPT", {"clip_exponent": -1.0}, "clip_exponent must be .* of at least 0, got -1.0"),
        ("Signum", {"momentum": 1.0}, r"momentum must be a number in \[0, 1\), got 1.0"),
    ],
)
def test_numbers_that_a_rule_refuses(rule: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(instep, rule)(np.ones(2), **options)
    optimizer = getattr(instep, rule)(np.ones(2))
    ((name, value),) = options.items()
    before = repr(optimizer)
    with pytest.raises(ValueError, match=message):
        setattr(optimizer, name, value)
    assert repr(optimizer) == before


def test_step_sizes_under_a_schedule_may_cross() -> None:
    w = np.zeros(1)
    sizes = (schedules.Constant(0.5), 0.25)
    instep.Rprop(w, step_sizes=sizes).step(np.ones(1))
    assert w[0] == -0.25, "the largest counts"


def test_signum_without_momentum_has_no_state() -> None:
    assert instep.Signum(np.ones(2), momentum=0.0).state["0"] == {}
    scheduled = instep.Signum(np.ones(2), momentum=schedules.Constant(0.0))
    assert list(scheduled.state["0"]) == ["momentum_buffer"]


def of_steps(rule: str) -> tuple[instep.Steps, np.ndarray]:
    w = np.ones(2)
    steps = instep.Steps()
    group = steps.add_group(rule)
    steps.append(1)
    states = {name: np.zeros(2) for name in instep.Steps.rules()[rule]["states"]}
    steps.bind(0, w, group=group, states=states)
    return steps, w


def test_the_numbers_of_a_host_are_refused_alike() -> None:
    ftrl = {"lr": 0.5, "beta": 1.0, "l1": 0.5, "weight_decay": 0.0, "initial_accumulator_value": 0}
    for rule, numbers, message in [
        ("ftrl", {**ftrl, "decoupled_l1": True}, "decoupled_l1 of group 0 must be False, got True"),
        ("ftrl", {**ftrl, "lr": 0.0}, "lr of group 0 must be a finite number greater than 0"),
        ("ftrl", {**ftrl, "beta": None}, "beta of group 0 must be a finite number of at least 0"),
    ]:
        steps, w = of_steps(rule)
        with pytest.raises((TypeError, ValueError), match=message):
            steps.step([np.ones(2)], [numbers])
        steps.step([np.ones(2)], [ftrl])
        assert w.tolist() != [1.0, 1.0]


def test_a_host_may_leave_adopts_limit_out() -> None:
    numbers = {"lr": 0.5, "beta1": 0.5, "beta2": 0.5, "eps": 1e-6}
    found = []
    for exponent in (None, 0.25):
        steps, w = of_steps("adopt")
        for g in (0.5, 8.0):
            steps.step([np.full(2, g)], [{**numbers, "clip_exponent": exponent}])
        twin = np.ones(2)
        optimizer = instep.ADOPT(twin, lr=0.5, betas=(0.5, 0.5), clip_exponent=exponent)
        for g in (0.5, 8.0):
            optimizer.step(np.full(2, g))
        assert w.tolist() == twin.tolist()
        found.append(w[0])
    assert found == [1 - 0.25 * 16, 1 - 0.25]
