"""Any optimizer, any arrays, a few steps: the bits are the reference's."""

from __future__ import annotations

from typing import Any

from cases import THREADS
from hypothesis import given
from hypothesis import strategies as st
from strategies import Setup, gradients, scales, setups
from twins import Twins

import instep
from instep import _core

threads = st.sampled_from(THREADS)
levels = st.sampled_from(instep.isa_levels())


@given(setup=setups(), data=st.data())
def test_steps(setup: Setup, data: Any) -> None:
    _core.testing.set_least_work(1)  # parallel from one chunk a thread on
    twins = Twins(setup)
    twins.check()
    for _ in range(data.draw(st.integers(1, 4))):
        instep.set_isa(data.draw(levels))
        instep.set_num_threads(data.draw(threads))
        twins.step(data.draw(gradients(setup)), data.draw(scales))
        twins.check()
