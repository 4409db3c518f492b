"""Copies and pickles of schedules: public names alone, and what was one object is one object again."""

from __future__ import annotations

import copy
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from schedule_classes import CLASSES

import instep
from instep import schedules
from instep.schedules import Constant, Linear, ReduceOnPlateau, Schedule, Sequential, Warmup


def repickled(value: Any) -> Any:
    return pickle.loads(pickle.dumps(value))


WAYS: dict[str, Callable[[Any], Any]] = {"deepcopy": copy.deepcopy, "pickle": repickled}
every_way = pytest.mark.parametrize("again", WAYS.values(), ids=WAYS)

# By name, so that a new class of schedules has to be added.
ONE_OF_EACH = {
    "Constant": Constant(0.5),
    "CosineDecay": schedules.CosineDecay(0.5, 9),
    "CosineRestarts": schedules.CosineRestarts(0.5, 9),
    "Cyclic": schedules.Cyclic(0.25, 0.5, 9),
    "ExponentialDecay": schedules.ExponentialDecay(0.5, 0.75),
    "HalfLife": schedules.HalfLife(0.5, 0.75, 9),
    "InverseSqrtDecay": schedules.InverseSqrtDecay(0.5),
    "InverseTimeDecay": schedules.InverseTimeDecay(0.5, 0.75),
    "Linear": Linear(0.5, 0.25, 9),
    "OneCycle": schedules.OneCycle(0.5, 9),
    "PiecewiseConstant": schedules.PiecewiseConstant([0.5, 0.25], [9]),
    "PiecewiseLinear": schedules.PiecewiseLinear([0.5, 0.25], [9]),
    "PolynomialDecay": schedules.PolynomialDecay(0.5, 9),
    "Product": 0.5 * Linear(0.5, 0.25, 9),
    "ReduceOnPlateau": ReduceOnPlateau(0.5, patience=0),
    "Sequential": Sequential([Constant(0.5), Linear(0.5, 0.25, 9)], [3]),
    "Shifted": schedules.Shifted(Linear(0.5, 0.25, 9), 3),
    "SqrtDecay": schedules.SqrtDecay(0.5),
    "UniformAverage": schedules.UniformAverage(3),
    "Warmup": Warmup(Constant(0.5), 9),
    "WarmupStableDecay": schedules.WarmupStableDecay(0.5, 1, 2, 3),
}


def test_there_is_one_of_each() -> None:
    assert {cls.__name__ for cls in CLASSES} == set(ONE_OF_EACH)


def globals_in(pickled: bytes) -> set[str]:
    """Names that a pickle of protocol 2 imports, as "module name"."""
    return {str(arg) for op, arg, _ in pickletools.genops(pickled) if op.name == "GLOBAL"}


@pytest.mark.parametrize("name", ONE_OF_EACH)
def test_pickles_name_public_paths_alone(name: str) -> None:
    """Everything else may move, and a pickle is to be read all the same."""
    schedule: Any = ONE_OF_EACH[name]
    if name == "ReduceOnPlateau":
        for metric in (1.0, 2.0, 3.0):
            schedule.observe(metric)
    found = globals_in(pickle.dumps(schedule, 2))
    instep_names = {one for one in found if one.startswith("instep")}
    assert f"instep.schedules {name}" in instep_names
    for one in instep_names:
        module, public = one.split()
        assert module == "instep.schedules"
        assert public in schedules.__all__
    for again in WAYS.values():
        twin = again(schedule)
        assert type(twin) is type(schedule)
        assert twin == schedule
        assert [twin(t) for t in range(20)] == [schedule(t) for t in range(20)]


@every_way
def test_a_plateau_goes_on_in_its_copy(again: Callable[[Any], Any]) -> None:
    plateau = ReduceOnPlateau(0.5, factor=0.5, patience=1, cooldown=2)
    for metric in (3.0, 4.0, 5.0, 6.0):
        plateau.observe(metric)
    twin = again(plateau)
    assert twin.state_dict() == plateau.state_dict()
    for metric in (7.0, 2.0, 8.0, 9.0, 9.0, 9.0):
        plateau.observe(metric)
        twin.observe(metric)
        assert (twin.state_dict(), twin(0)) == (plateau.state_dict(), plateau(0))
    twin.load_state_dict(ReduceOnPlateau(0.5, patience=1).state_dict())
    assert plateau != twin


def places(optimizer: Any) -> list[Any]:
    """The plateaus of an optimizer made as below, wherever they stand."""
    first, second = optimizer.param_groups
    return [
        first["lr"],
        first["betas"][1],
        first["weight_decay"].schedule.schedules[1],
        second["lr"].factor,
        second["lr"].schedule,
        optimizer.clip_norm,
        optimizer.ema_decay.schedule,
    ]


@every_way
def test_one_plateau_at_many_places_of_an_optimizer(again: Callable[[Any], Any]) -> None:
    plateau = ReduceOnPlateau(0.5, factor=0.5, patience=0)
    decay: Schedule = 0.5 * Sequential([Constant(0.1), plateau], [3])
    optimizer = instep.Adam(
        [
            {"params": np.ones(2), "betas": (0.5, plateau), "weight_decay": decay},
            {"params": np.ones(3), "lr": plateau * plateau},
        ],
        lr=plateau,
        clip_norm=plateau,
        ema_decay=Warmup(plateau, 2),
    )
    plateau.observe(1.0)
    twin = again(optimizer)
    (mine,) = {id(one) for one in places(twin)}
    assert mine != id(plateau)
    assert all(one == plateau for one in places(twin))
    places(twin)[0].observe(2.0)
    assert {one(0) for one in places(twin)} == {0.25}
    assert {one(0) for one in places(optimizer)} == {0.5}
    for one in (optimizer, twin):
        one.step([np.ones(2), np.ones(3)])
    assert repr(twin.state_dict()) != repr(optimizer.state_dict())


@every_way
def test_a_plateau_beside_its_optimizer_is_its_copys(again: Callable[[Any], Any]) -> None:
    plateau = ReduceOnPlateau(0.5, factor=0.5, patience=0)
    optimizer = instep.SGD(np.ones(2), lr=Warmup(plateau, 0))
    twin_plateau, twin = again((plateau, optimizer))
    assert twin.lr.schedule is twin_plateau
    for metric in (1.0, 2.0):
        twin_plateau.observe(metric)
    assert (twin.lr(0), optimizer.lr(0)) == (0.25, 0.5)
