"""Callables of the user's own after a load: a warning says if another one is in the place of a stored one."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshots import bits

import instep
from instep import checkpoint
from instep.schedules import Sequential, Warmup

pytest.importorskip("safetensors")


def first(step: float) -> float:
    return 0.5 / (step + 1)


def second(step: float) -> float:
    return 0.25 / (step + 1)


PLACES: dict[str, Any] = {
    "param_groups[0]['lr']": lambda f: {"lr": f},
    "param_groups[0]['weight_decay']": lambda f: {"weight_decay": Warmup(f, 5) * 0.5},
    "param_groups[0]['betas']": lambda f: {"betas": (0.5, Sequential([first, f], [3]))},
    "clip_norm": lambda f: {"clip_norm": f},
    "ema_decay": lambda f: {"ema_decay": f},
}


def by_state_dict(saved: Any, optimizer: Any, folder: Path) -> None:
    optimizer.load_state_dict(saved.state_dict())


def by_checkpoint(saved: Any, optimizer: Any, folder: Path) -> None:
    checkpoint.save(folder / "run", saved)
    checkpoint.load(folder / "run", optimizer)


@pytest.mark.parametrize("load", [by_state_dict, by_checkpoint], ids=lambda f: f.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_another_name_is_warned_of_once(place: str, load: Any, tmp_path: Path) -> None:
    saved, optimizer = (
        instep.Adam(np.ones(2), **PLACES[place](f)) for f in (first, functools.partial(second))
    )
    saved.step(np.ones(2))
    with pytest.warns(UserWarning, match="'first', and is") as caught:
        load(saved, optimizer, tmp_path)
    assert [str(warning.message) for warning in caught] == [
        f"{place} was saved with the callable "
        "'first', and is 'partial' now; the run goes on with 'partial'"
    ]
    assert caught[0].filename == __file__
    assert optimizer.step_count == 1

    same = instep.Adam(np.ones(2), **PLACES[place](first))
    load(saved, same, tmp_path)  # no warning, which would be an error here
    assert same.step_count == 1


@pytest.mark.parametrize("load", [by_state_dict, by_checkpoint], ids=lambda f: f.__name__)
def test_as_an_error_it_leaves_everything(load: Any, tmp_path: Path) -> None:
    saved, optimizer = (instep.SGD(np.ones(2), lr=f) for f in (first, second))
    saved.step(np.ones(2))
    before = bits(optimizer)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="'first', and is 'second' now"):
            load(saved, optimizer, tmp_path)
    assert bits(optimizer) == before


def test_a_state_that_is_refused_warns_of_nothing() -> None:
    optimizer = instep.SGD(np.ones(2), lr=second)
    state = instep.SGD(np.ones(3), lr=first, momentum=0.5).state_dict()
    with pytest.raises(ValueError, match="momentum"):
        optimizer.load_state_dict(state)


def test_a_name_that_is_none() -> None:
    state = instep.SGD(np.ones(2), lr=first).state_dict()
    state["param_groups"][0]["lr"]["callable"] = ["x"]
    with pytest.warns(UserWarning, match=r"the callable \['x'\], and is 'second' now"):
        instep.SGD(np.ones(2), lr=second).load_state_dict(state)
