"""Random numbers of parameters so large that counters pass 2**32: a stretch of one, from an element on that is given.

Counters of codes are half as many as elements, so theirs pass it at element 2**33.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, LEVELS, rng_for, use_level
from codes import encode, uniform
from random_numbers import Draws
from reference import assert_same_bits
from rounding import split, stochastic

import instep
from instep import _core
from instep.optimizers.plans import made_by

SIZE = 2 * CHUNK + 70
FAR = {"first": 0, "of elements": 2**32 - CHUNK, "of codes": 2**33 - CHUNK, "beyond": 2**40}


class Plan:
    """A plan of the core whose parameters are stretches that begin with an element."""

    def __init__(self, plan: Any, first: int) -> None:
        self.plan, self.first = plan, first

    def add(self, groups: list[tuple[Any, ...]], *rest: Any) -> Any:
        """Tell the core where the stretches lie."""
        parts = [((self.first + array.size,), self.first) for *_, (array,), _, _ in groups]
        return self.plan.add([(*g, [part]) for g, part in zip(groups, parts, strict=True)], *rest)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.plan, name)


class Maker:
    """Makes such plans."""

    def __init__(self, first: int) -> None:
        self.first = first

    def make_plan(self, *arguments: Any, **formats: Any) -> Any:
        """Make the plan of one optimizer."""
        return Plan(_core.make_plan(*arguments, **formats), self.first)


def stepped(first: int, rule: Any, w: np.ndarray, g: np.ndarray, **more: Any) -> Any:
    with made_by(Maker(first)):  # type: ignore[arg-type]
        optimizer = rule({"w": w}, lr=1.0, seed=6, **more)
    optimizer.step({"w": g})
    return optimizer


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("first", FAR.values(), ids=FAR)
@pytest.mark.parametrize("has_copy", [False, True], ids=["", "copy"])
def test_random_numbers_of_far_elements(first: int, has_copy: bool, level: str) -> None:
    use_level(level)
    g = rng_for("far", first).standard_normal(SIZE).astype("f4")
    draws = Draws(6, 0, 1, first)
    zeros = np.zeros(SIZE, "f4")
    copy = {"copy_to": {"w": np.zeros(SIZE, BFLOAT16)}} if has_copy else {}  # in blocks

    momentum = stepped(first, instep.Momentum, zeros.copy(), g, state_dtype=BFLOAT16, **copy)
    wanted = stochastic(g, BFLOAT16, draws.halves(0, SIZE))
    assert_same_bits(momentum.state["w"]["momentum_buffer"], wanted, "16 bits")

    coded = stepped(first, instep.Momentum, zeros.copy(), g, state_dtype="8bit", **copy)
    codes, units = encode(g, True, uniform(draws.bytes(0, SIZE)))
    assert_same_bits(coded.state["w"]["momentum_buffer"], codes, "codes")
    assert_same_bits(coded.state["w"]["momentum_buffer_unit"], units, "units")

    w = np.zeros(SIZE, BFLOAT16)
    of_24 = stepped(first, instep.SGD, w, -g, master_bits=24, param_rounding="stochastic")
    high, rest = split(g, 24, draws.words(SIZE))
    assert_same_bits(w, high, "parameter")
    assert_same_bits(of_24.state["w"]["remainder"], rest, "remainder")
