"""Schedules in schedules: fifty levels, whatever is done with them, and a clear refusal beyond."""

from __future__ import annotations

import copy
import json
import pickle
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

import instep
from instep.schedules import (
    Constant,
    CosineDecay,
    Linear,
    Product,
    ReduceOnPlateau,
    Schedule,
    Sequential,
    Shifted,
    Warmup,
    from_dict,
)

DEEPEST = 50


@dataclass(frozen=True, eq=False, repr=False)
class Own(Schedule):
    """A schedule of the user's that holds another."""

    inner: Any

    def _value(self, t: float) -> float:
        return float(self.inner(t))


WRAPPERS: dict[str, Callable[[Any], Schedule]] = {
    "Warmup": lambda s: Warmup(s, 3),
    "Sequential": lambda s: Sequential([Constant(0.5), s], [2]),
    "Shifted": lambda s: Shifted(s, 1),
    "Product, as a factor": lambda s: s * Linear(1.0, 2.0, 5),
    "Product, as the schedule": lambda s: Linear(1.0, 2.0, 5) * s,
    "Product of a number": lambda s: Product(0.5, s),
    "Product of two": lambda s: s * s if isinstance(s, Linear) else s * Constant(0.5),
    "a class of the user's": Own,
}
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)


def nested(wrap: Callable[[Any], Schedule], levels: int) -> Schedule:
    schedule: Schedule = Linear(0.5, 1.0, 9)
    for _ in range(levels - 1):
        schedule = wrap(schedule)
    return schedule


@every_wrapper
def test_one_level_too_many_is_refused_by_name(wrap: Callable[[Any], Schedule]) -> None:
    deepest = nested(wrap, DEEPEST)
    with pytest.raises(
        ValueError, match=r"^\w+: schedules must be nested at most 50 levels deep, got more; "
    ):
        wrap(deepest)


def test_levels_of_all_kinds_are_counted_together() -> None:
    wraps = list(WRAPPERS.values())
    schedule = nested(wraps[0], 1)
    for k in range(DEEPEST - 1):
        schedule = wraps[k % len(wraps)](schedule)
    for wrap in wraps:
        with pytest.raises(ValueError, match="nested at most 50 levels deep, got more"):
            wrap(schedule)


@every_wrapper
def test_the_deepest_can_do_whatever_others_can(wrap: Callable[[Any], Schedule]) -> None:
    """In half of the calls that the interpreter allows by default, whatever it has grown to."""
    schedule, again = nested(wrap, DEEPEST), nested(wrap, DEEPEST)
    frame, here = sys._getframe(), 0
    while frame := frame.f_back:  # type: ignore[assignment]
        here += 1
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(here + 500)
    try:
        assert schedule == again
        assert hash(schedule) == hash(again)
        assert np.isfinite(schedule(100))
        assert len(repr(schedule)) > DEEPEST
        for twin in (copy.deepcopy(schedule), pickle.loads(pickle.dumps(schedule))):
            assert twin == schedule
        optimizer = instep.SGD(np.ones(2), lr=schedule, weight_decay=schedule)
        optimizer.step(np.ones(2))
        for other in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
            assert other.lr == schedule
        if wrap is not Own:
            assert from_dict(json.loads(json.dumps(schedule.to_dict()))) == schedule
            state = optimizer.state_dict()
            optimizer.load_state_dict(state)
            assert optimizer.state_dict()["param_groups"] == state["param_groups"]
    finally:
        sys.setrecursionlimit(limit)


def test_parts_at_several_places_cost_no_more() -> None:
    """Which as a tree would be 2^49 schedules: construction looks at each level's objects once."""
    schedule: Schedule = Linear(0.5, 1.0, 9)
    for _ in range(DEEPEST - 1):
        schedule = schedule * schedule
    with pytest.raises(ValueError, match="nested at most 50 levels deep, got more"):
        schedule * schedule


def deep(levels: int, leaf: Any) -> Any:
    stored = leaf
    for _ in range(levels):
        stored = {"schedule": "Warmup", "of": stored, "steps": 3, "init": 0.0}
    return stored


LEAF = Constant(0.5).to_dict()
LOOP: dict[str, Any] = {"schedule": "Warmup", "steps": 3, "init": 0.0}
LOOP["of"] = LOOP
WIDE: Any = [LEAF, LEAF]
for _ in range(40):
    WIDE = [{"schedule": "Sequential", "schedules": WIDE, "boundaries": [1]}] * 2
LISTS: Any = []
for _ in range(100_000):
    LISTS = [LISTS]

HOSTILE = {
    "one level too many": (deep(DEEPEST, LEAF), "nested at most 50 levels deep, got more"),
    "thousands of levels": (deep(100_000, LEAF), "nested at most 50 levels deep, got more"),
    "in itself": (LOOP, "nested at most 50 levels deep, got more"),
    "lists in lists": ({**LOOP, "of": LISTS}, "a list in a list"),
    "a state of dicts": (
        {**ReduceOnPlateau(0.5).to_dict(), "state": deep(1000, {})},
        "nested at most 50 levels deep, got more",
    ),
    "2^41 schedules": (WIDE[0], "must have at most 10000 parts, got more"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_dictionaries(name: str) -> None:
    stored, message = HOSTILE[name]
    with pytest.raises(ValueError, match=message):
        from_dict(stored)
    optimizer = instep.Adam(np.ones(2), betas=(Constant(0.5), 0.75))
    good = optimizer.state_dict()
    for place in ("lr", "clip_norm", "betas"):
        state = copy.deepcopy(good)
        if place == "clip_norm":
            state[place] = stored
        else:
            state["param_groups"][0][place] = stored if place == "lr" else [stored, 0.75]
        with pytest.raises(ValueError, match=message):
            optimizer.load_state_dict(state)
        assert repr(optimizer.state_dict()) == repr(good)


@pytest.mark.parametrize("place", ["lr", "betas"])
def test_lists_in_the_place_of_a_number(place: str) -> None:
    optimizer = instep.Adam(np.ones(2))
    state = optimizer.state_dict()
    state["param_groups"][0][place] = LISTS
    with pytest.raises((TypeError, ValueError), match=place):
        optimizer.load_state_dict(state)


def test_a_number_times_a_schedule_times_a_number_is_one_level() -> None:
    optimizer = instep.SGD(np.ones(1), lr=CosineDecay(0.5, 1000) * Linear(1.0, 2.0, 50))
    factor = 1.0
    for _ in range(3000):
        optimizer.lr *= 0.999
        factor *= 0.999
    assert optimizer.lr == Product(factor, CosineDecay(0.5, 1000) * Linear(1.0, 2.0, 50))
    optimizer.step(np.ones(1))


def test_constants_stay_constants() -> None:
    lr: Any = Constant(0.1)
    wanted = 0.1
    for _ in range(3000):
        lr = 0.999 * lr
        wanted = 0.999 * wanted
    assert lr == Constant(wanted)
    assert Constant(0.3) / 3 == Constant((1 / 3) * 0.3)


@pytest.mark.parametrize("a", [0.1, -3.0, 1 / 3, 0.0])
@pytest.mark.parametrize("b", [0.7, 1e-300, 49.0])
def test_the_folded_factor_is_the_product_of_the_numbers(a: float, b: float) -> None:
    f = Linear(0.3, 0.7, 11)
    for folded in (a * (b * f), (f * b) * a, a * (f * b), (b * f) * np.float64(a)):
        assert folded == Product(a * b, f)
        assert folded(4) == (a * b) * f(4)
    assert eval(repr(a * (b * f))) == Product(a * b, f)


def test_what_is_made_by_hand_stays_as_it_is_made() -> None:
    """And is written so: old checkpoints have such products, and go on to the same bits."""
    f = Linear(0.3, 0.7, 11)
    for product in (Product(0.1, Product(0.7, f)), Product(0.1, Constant(0.7))):
        assert from_dict(product.to_dict()) == product
        again = eval(repr(product))
        assert again == product
        assert again(3) == 0.1 * product.schedule(3)


WRONG = [np.inf, np.nan, True, "2", None, [2.0], pytest.param(10**400, id="10**400")]


@pytest.mark.parametrize("wrong", WRONG)
def test_factors_that_are_no_numbers(wrong: Any) -> None:
    for schedule in (Constant(0.5), 2 * Linear(0.3, 0.7, 11), Linear(0.3, 0.7, 11)):
        for product in (lambda s=schedule: s * wrong, lambda s=schedule: wrong * s):
            with pytest.raises((TypeError, ValueError)):
                product()
    with pytest.raises(ValueError, match="must be a finite number, got inf"):
        1e200 * (1e200 * Linear(0.3, 0.7, 11))
