"""Hyperparameters that came later: states of a version without them load, and are stored as that version did."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

import instep

LATER: list[tuple[Any, dict[str, Any]]] = [
    (instep.SGD, {"decoupled_weight_decay": True, "decoupled_l1": True}),
    (instep.Adam, {"eps_hat": True, "clip_update": 0.5, "decoupled_l1": True}),
    (
        instep.RMSprop,
        {"momentum": 0.5, "lr_in_velocity": True, "initial_square_avg": 0.5}
        | {"decoupled_weight_decay": True, "decoupled_l1": True},
    ),
]


@pytest.mark.parametrize(("rule", "options"), LATER)
def test_they_are_stored_if_they_are_on(rule: Any, options: dict[str, Any]) -> None:
    later = options.keys() - {"momentum"}
    momentum = {name: options[name] for name in options if name == "momentum"}
    plain, full = rule(np.ones(2), **momentum), rule(np.ones(2), **options)
    assert not later & plain.state_dict()["param_groups"][0].keys()
    state = full.state_dict()
    assert {name: state["param_groups"][0][name] for name in options} == options
    twin = rule(np.ones(2), **options)
    twin.load_state_dict(state)
    assert twin.state_dict() is not None
    for one in (full, twin):
        one.step(np.ones(2))
    assert_same_bits(full.params["0"], twin.params["0"])


def test_absent_means_off() -> None:
    """And what is on here goes off, as every hyperparameter is loaded."""
    state = instep.Adam(np.ones(2)).state_dict()
    optimizer = instep.Adam(np.ones(2), decoupled_l1=True)
    optimizer.load_state_dict(state)
    assert optimizer.decoupled_l1 is False
    with pytest.raises(ValueError, match="eps_hat must stay True"):
        instep.Adam(np.ones(2), eps_hat=True).load_state_dict(state)


def test_a_schedule_is_stored() -> None:
    optimizer = instep.RMSprop(np.ones(2), initial_square_avg=instep.schedules.Constant(0.5))
    assert "initial_square_avg" in optimizer.state_dict()["param_groups"][0]
