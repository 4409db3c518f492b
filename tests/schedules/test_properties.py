"""Any schedule: an array's values are its numbers', and text, dictionary and pickle give it back."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from schedule_classes import CLASSES

from instep import schedules
from instep.schedules import ReduceOnPlateau, Schedule, from_dict

numbers = st.one_of(st.floats(-1e6, 1e6), st.floats(0, 2), st.sampled_from([0.0, -0.0, 5e-324]))
counts = st.one_of(st.integers(0, 20), st.integers(0, 2**53))
words = st.sampled_from(
    ["linear", "cosine", "sqrt", "triangular", "triangular2", "exp_range", "min", "max"]
)
steps = st.one_of(
    st.integers(0, 100), st.integers(0, 10**300), st.floats(0, 100), st.floats(0, 1e300)
)


def argument(field: Any, inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Values of an argument's type; whether they are in its range, the constructor says."""
    if field.name == "schedules":
        return st.lists(inner, min_size=1, max_size=3)
    # The longer names first: they contain the others.
    kinds = [
        ("Sequence[float]", st.lists(numbers, min_size=1, max_size=4)),
        ("Sequence[int]", st.lists(st.integers(1, 30), max_size=3, unique=True).map(sorted)),
        ("StepFunction", inner),
        ("Callable[[float], float]", inner),
        ("float", numbers),
        ("int", counts),
        ("bool", st.booleans()),
        ("str", words),
        ("None", st.none()),
    ]
    text, of = str(field.type), []
    for name, values in kinds:
        if name in text:
            text = text.replace(name, "")
            of.append(values)
    return st.one_of(*of)


@st.composite
def any_schedule(draw: Any, depth: int = 2) -> Schedule:
    classes = CLASSES if depth else [schedules.Constant, schedules.Linear, schedules.CosineDecay]
    cls = draw(st.sampled_from(classes))
    inner = any_schedule(depth - 1)
    fields = [field for field in dataclasses.fields(cls) if field.init]
    arguments = {field.name: draw(argument(field, inner)) for field in fields}
    try:
        return cls(**arguments)
    except ValueError:
        assume(False)
        raise


def bits(values: Any) -> Any:
    return np.asarray(values, np.float64).view(np.uint64).tolist()


@given(schedule=any_schedule(), at=st.lists(steps, max_size=6))
def test_an_array_is_its_numbers(schedule: Schedule, at: list[float]) -> None:
    alone = [schedule(t) for t in at]
    assert bits(schedule(np.array(at, np.float64))) == bits([schedule(float(t)) for t in at])
    assert all(type(value) is float for value in alone)


@given(schedule=any_schedule(), at=st.lists(steps, max_size=6), metric=numbers)
def test_every_way_back(schedule: Schedule, at: list[float], metric: float) -> None:
    if isinstance(schedule, ReduceOnPlateau):
        schedule.observe(metric)
    ways = [
        from_dict(json.loads(json.dumps(schedule.to_dict(), allow_nan=False))),
        pickle.loads(pickle.dumps(schedule)),
        copy.deepcopy(schedule),
    ]
    if "ReduceOnPlateau" not in repr(schedule):  # whose text leaves out its state
        ways.append(eval(repr(schedule), vars(schedules).copy()))
    for again in ways:
        assert again == schedule
        assert repr(again) == repr(schedule)
        assert bits([again(t) for t in at]) == bits([schedule(t) for t in at])


@given(schedule=any_schedule(depth=0), t=steps)
def test_between_its_ends(schedule: Schedule, t: float) -> None:
    stored = {**schedule.to_dict(), "exponent": None}
    ends = [value for value in stored.values() if isinstance(value, float)]
    slack = 1e-12 * max(map(abs, ends))
    assert min(ends) - slack <= schedule(t) <= max(ends) + slack


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_is_drawn(cls: type[Schedule]) -> None:
    """Its arguments are of types that a strategy is there for."""
    for field in dataclasses.fields(cls):
        if field.init:
            assert not argument(field, st.none()).is_empty


@given(schedule=any_schedule(), t=steps)
def test_finite(schedule: Schedule, t: float) -> None:
    assert math.isfinite(schedule(t))
