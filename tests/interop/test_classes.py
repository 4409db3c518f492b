"""Which rule of torch a class of optimizers has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import instep
from instep import interop


def test_a_rule_that_torch_does_not_have() -> None:
    class Silent(instep.Adam):
        _rule = "adam"

    with pytest.raises(
        ValueError, match=r"that torch has, .*, got 'Silent'; describe .* in Silent\._torch"
    ):
        interop.to_torch_state_dict(Silent(np.zeros(1)))

    class Own(instep.Adam):
        _torch = None

    with pytest.raises(
        ValueError, match=r"the rule must be one that torch has, .*, Adam, AdamW, .*, got 'Own'$"
    ):
        interop.to_torch_state_dict(Own(np.zeros(1)))


def test_a_subclass_with_other_defaults_is_the_rule_of_its_base() -> None:
    class Mine(instep.AdamW):
        def __init__(self, params: Any) -> None:
            super().__init__(params, lr=0.5)

    mine, plain = Mine(np.zeros(2)), instep.AdamW(np.zeros(2))
    mine.step(np.ones(2))
    for convert in (interop.to_torch_state_dict, lambda o: o.state_dict()):
        state = convert(mine)
        if "rule" in state:
            assert state["rule"] == "AdamW"
            plain.load_state_dict(state)
            plain.load_state_dict({**state, "rule": "AdamW"})
            mine.load_state_dict({**state, "rule": "Mine"})  # as releases before 0.1.0 stored it
        else:
            interop.from_torch_state_dict(plain, state)
        assert plain.lr == 0.5
        assert plain.state["0"]["exp_avg"].tolist() == mine.state["0"]["exp_avg"].tolist()
