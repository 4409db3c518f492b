"""Loading into schedules that others hold: what they observe after a resume is heard."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import checkpoint
from instep.schedules import (
    Constant,
    Linear,
    ReduceOnPlateau,
    Schedule,
    Sequential,
    Warmup,
    from_dict,
)

Place = Callable[[Any], dict[str, Any]]

# Where a plateau may stand: keywords of an optimizer made around it.
PLACES: dict[str, Place] = {
    "alone": lambda p: {"lr": p},
    "warmed up": lambda p: {"lr": Warmup(p, 10)},
    "multiplied": lambda p: {"lr": p * 0.5},
    "as a factor": lambda p: {"lr": Linear(0.5, 1.0, steps=9) * p},
    "in a sequence": lambda p: {"lr": Sequential([Constant(0.5), Warmup(p, 2)], [7])},
    "deep": lambda p: {"lr": 2 * Warmup(Sequential([p, Constant(0.1)], [70]) * 0.5, 3)},
    "in a pair": lambda p: {"betas": (0.5, p)},
    "clip_norm": lambda p: {"clip_norm": p},
    "ema_decay": lambda p: {"ema_decay": p},
    "twice": lambda p: {"lr": p, "weight_decay": Warmup(p, 5)},
    "at every place": lambda p: {"lr": p * p, "betas": (p, p), "clip_norm": p, "ema_decay": p},
}


def by_state_dict(saved: Any, optimizer: Any, _: Path) -> None:
    optimizer.load_state_dict(saved.state_dict())


def by_checkpoint(saved: Any, optimizer: Any, folder: Path) -> None:
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    checkpoint.save(folder / "run", saved)
    checkpoint.load(folder / "run", optimizer)


WAYS = [by_state_dict, by_checkpoint]


def plateau(**arguments: Any) -> ReduceOnPlateau:
    return ReduceOnPlateau(0.5, **{"factor": 0.5, "patience": 1, **arguments})


def made(*places: dict[str, Any]) -> Any:
    """An optimizer with a group for each of these keywords."""
    groups: list[dict[str, Any]] = []
    together: dict[str, Any] = {}
    for place in places:
        groups.append({"params": {f"w{len(groups)}": np.ones(2)}})
        for name, value in place.items():
            (together if name in ("clip_norm", "ema_decay") else groups[-1])[name] = value
    return instep.Adam(groups, **together)


def observed(schedule: ReduceOnPlateau, *losses: float) -> ReduceOnPlateau:
    for loss in losses:
        schedule.observe(loss)
    return schedule


def values(optimizer: Any, step: int) -> Any:
    return optimizer._hyperparameters_at(step)


@pytest.mark.parametrize("load", WAYS, ids=lambda f: f.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_the_caller_s_own_goes_on(place: str, load: Any, tmp_path: Path) -> None:
    first, mine = plateau(), plateau(patience=7)
    saved, optimizer = made(PLACES[place](first)), made(PLACES[place](mine))
    observed(first, 3.0, 2.0, 2.0, 2.0, 1.5, 1.5)
    load(saved, optimizer, tmp_path)
    assert mine == first
    assert optimizer.state_dict()["param_groups"] == saved.state_dict()["param_groups"]
    before = values(optimizer, 40)
    for one in (first, mine):
        observed(one, 1.5)  # the second in a row: it reduces
    assert values(optimizer, 40) == values(saved, 40)
    assert values(optimizer, 40) != before


@pytest.mark.parametrize("load", WAYS, ids=lambda f: f.__name__)
def test_groups_that_share_one_share_one_afterwards(load: Any, tmp_path: Path) -> None:
    first, mine = observed(plateau(), 1.0, 1.0), plateau()
    saved = made({"lr": first}, {"lr": first * 2})

    optimizer = made({"lr": mine}, {"lr": mine * 2})  # in the present one
    load(saved, optimizer, tmp_path)
    one, two = (group["lr"] for group in optimizer.param_groups)
    assert one is two.schedule is mine

    last = plateau()  # in one that the last group has
    optimizer = made({"lr": 0.1}, {"lr": last * 2})
    load(saved, optimizer, tmp_path)
    one, two = (group["lr"] for group in optimizer.param_groups)
    assert one is two.schedule is last

    optimizer = made({"lr": 0.1}, {"lr": 0.1})  # in a new one
    load(saved, optimizer, tmp_path)
    one, two = (group["lr"] for group in optimizer.param_groups)
    assert one is two.schedule
    assert one == first
    assert one is not first

    apart = plateau(), plateau()  # held by two callers: none of them is let down
    optimizer = made({"lr": apart[0]}, {"lr": apart[1] * 2})
    load(saved, optimizer, tmp_path)
    assert optimizer.param_groups[0]["lr"] is apart[0]
    assert optimizer.param_groups[1]["lr"].schedule is apart[1]
    assert apart == (first, first)


@pytest.mark.parametrize("load", WAYS, ids=lambda f: f.__name__)
def test_two_that_only_happen_to_be_equal_stay_two(load: Any, tmp_path: Path) -> None:
    saved, optimizer = made({"lr": plateau()}, {"lr": plateau()}), made({}, {})
    load(saved, optimizer, tmp_path)
    one, two = (group["lr"] for group in optimizer.param_groups)
    assert one == two
    assert one is not two


@pytest.mark.parametrize("load", WAYS, ids=lambda f: f.__name__)
def test_another_kind_is_replaced_by_the_stored_one(load: Any, tmp_path: Path) -> None:
    first, mine = observed(plateau(), 1.0), plateau()
    for stored, there in (
        (PLACES["warmed up"](first), {"lr": mine}),
        (PLACES["alone"](first), {"lr": Warmup(mine, 10)}),
        ({"lr": 0.25}, {"lr": mine}),
        ({"lr": Linear(0.1, 0.2, steps=3)}, {"lr": mine}),
    ):
        optimizer = made(there)
        load(made(stored), optimizer, tmp_path)
        assert optimizer.lr == stored["lr"]
        assert mine == plateau()
    optimizer = made(PLACES["multiplied"](mine))  # another factor, the same place
    load(made({"lr": first * 0.25}), optimizer, tmp_path)
    assert optimizer.lr == first * 0.25
    assert optimizer.lr.schedule is mine


@pytest.mark.parametrize("load", WAYS, ids=lambda f: f.__name__)
def test_one_object_can_not_become_two_different_ones(load: Any, tmp_path: Path) -> None:
    mine = plateau()
    saved = made({"lr": observed(plateau(), 1.0)}, {"lr": observed(plateau(), 2.0)})
    optimizer = made({"lr": mine}, {"lr": mine})
    before = repr(optimizer.state_dict())
    with pytest.raises(
        ValueError,
        match="stored for one ReduceOnPlateau at several places must be the same, got different",
    ) as caught:
        load(saved, optimizer, tmp_path)
    assert "\n" not in str(caught.value)
    assert repr(optimizer.state_dict()) == before
    assert mine == plateau()


BAD: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "state of a later group": (
        lambda d: d["param_groups"][1]["lr"]["state"].update(bad=-1),
        r"param_groups\[1\]\['lr'\]: .*state\['bad'\] must be an int >= 0",
    ),
    "argument": (
        lambda d: d["param_groups"][0]["lr"].update(factor=2.0),
        "factor must be a number > 0 and < 1",
    ),
    "shared no number": (
        lambda d: d["param_groups"][0]["lr"].update(shared="0"),
        "a stored ReduceOnPlateau: shared must be an int",
    ),
    "shared below zero": (
        lambda d: d["param_groups"][0]["lr"].update(shared=-1),
        "shared must be an int >= 0",
    ),
    "shared by no stateful one": (
        lambda d: d["param_groups"][0].update(lr={**Constant(0.5).to_dict(), "shared": 0}),
        "a stored Constant must have the expected fields; unknown: 'shared'",
    ),
    "shared, but different": (
        lambda d: [g["lr"].update(shared=0, init=0.5 + k) for k, g in enumerate(d["param_groups"])],
        "at several places must be the same, got different states",
    ),
    "later error": (lambda d: d["steps"].update(w1=-1), r"steps\['w1'\] must be .*, got -1"),
    "wrong array": (lambda d: d["state"]["w1"].update(exp_avg=np.ones(3)), "must have shape"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_refused_load_leaves_the_caller_s_own_alone(how: str) -> None:
    mine = observed(plateau(), 1.0, 1.0), observed(plateau(), 2.0)
    optimizer = made({"lr": mine[0]}, {"lr": mine[1]})
    stored = copy.deepcopy(made({"lr": plateau()}, {"lr": plateau()}).state_dict())
    change, message = BAD[how]
    change(stored)
    before = [one.state_dict() for one in mine], repr(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(stored)
    assert ([one.state_dict() for one in mine], repr(optimizer.state_dict())) == before
    assert (mine[0], mine[1]) == tuple(group["lr"] for group in optimizer.param_groups)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["deepcopy", "pickle"]
)
def test_copies_keep_what_is_one_object_one_object(again: Any, place: str) -> None:
    first = observed(plateau(), 3.0, 3.0)
    mine, twin = again((first, made(PLACES[place](first), {"lr": first})))
    assert mine == first
    assert mine is not first
    assert twin.param_groups[1]["lr"] is mine
    before = values(twin, 40)
    observed(mine, 3.0)
    assert values(twin, 40) != before
    assert mine != first


def test_a_schedule_that_holds_one_twice_comes_back_so() -> None:
    first = plateau()
    stored = Sequential([first, Warmup(first, 3), plateau()], [5, 9]).to_dict()
    one, two, three = from_dict(stored).schedules  # type: ignore[attr-defined]
    assert one is two.schedule
    assert three is not one
    assert "shared" not in stored["schedules"][2]
    assert "shared" not in Warmup(first, 3).to_dict()["of"]


# ---- callables of the user's own ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False, repr=False)
class Halving(Schedule):
    init: float

    def _value(self, t: float) -> float:
        return self.init * 0.5**t


@pytest.mark.parametrize(
    "make",
    [
        lambda own: own,
        lambda own: Warmup(own, steps=3),
        lambda own: Constant(0.5) * own,
        lambda own: Sequential([own, Warmup(own, steps=2)], [4]),
    ],
)
@pytest.mark.parametrize("own", [lambda step: 0.1, Halving(0.1)], ids=["function", "subclass"])
def test_callables_of_the_users_own_within_schedules(make: Any, own: Any) -> None:
    first = instep.SGD(np.zeros(1), lr=make(own), momentum=0.5)
    first.step(np.ones(1))
    state = first.state_dict()
    assert json.loads(json.dumps(state["param_groups"])) == state["param_groups"]
    second = instep.SGD(np.zeros(1), lr=make(own), momentum=0.5)
    second.load_state_dict(state)
    assert second.lr == first.lr
    with pytest.raises(
        ValueError, match=r"lr.*: a stored schedule must be of instep.schedules, got the callable"
    ):
        instep.SGD(np.zeros(1), lr=0.1, momentum=0.5).load_state_dict(state)


@dataclass(frozen=True, eq=False, repr=False)
class Doubled(Schedule):
    of: Any

    def _value(self, t: float) -> float:
        return 2 * float(self.of(t))


class OwnPlateau(ReduceOnPlateau):
    pass


@pytest.mark.parametrize(
    "lr", [OwnPlateau(0.1), Doubled(ReduceOnPlateau(0.1)), Doubled((OwnPlateau(0.1),))]
)
def test_a_state_that_would_be_lost_is_not_saved(lr: Any) -> None:
    for each in (lr, Constant(2.0) * lr):
        with pytest.raises(TypeError, match=r"to be stored, got (an Own|a Doubled)"):
            instep.SGD(np.zeros(1), lr=each).state_dict()
