"""Any optimizer that torch has too, by way of torch's form of its state: the run goes on to the bit."""

from __future__ import annotations

from typing import Any

from cases import IN_TORCH
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import assert_same_bits
from strategies import Setup, gradients, setups
from twins import Twins

from instep import interop


@given(setup=setups(IN_TORCH, exact=True, ema_decay=None, nonfinite="propagate"), data=st.data())
def test_there_and_back(setup: Setup, data: Any) -> None:
    twins = Twins(setup)
    for _ in range(data.draw(st.integers(0, 3))):
        twins.step(data.draw(gradients(setup)))
    first = twins.optimizer
    params = {name: p.copy() for name, p in first.params.items()}
    second = setup.optimizer(params, dict.fromkeys(params))
    try:
        state = interop.to_torch_state_dict(first)
    except ValueError:  # torch has no such option
        assume(False)
    interop.from_torch_state_dict(second, state)
    grads = data.draw(gradients(setup))
    if first.step_count != second.step_count:
        grads = dict.fromkeys(grads)  # torch has no count of all steps, which schedules go by
    for optimizer in (first, second):
        optimizer.step(setup.contain(grads))
    for name, p in first.params.items():
        assert_same_bits(params[name], p, name)
        for key, values in first.state[name].items():
            assert_same_bits(second.state[name][key], values, f"{key} of {name}")
