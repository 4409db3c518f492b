"""States in files: pickle and joblib store them; what np.save and np.savez make of them is refused with a hint."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from snapshots import bits

import instep

HINT = (
    "of the state must be a number, got an array, which np.savez makes of every value; "
    "store the state with pickle.dump or joblib.dump, or use instep.checkpoint"
)


def trained() -> Any:
    optimizer = instep.Adam({"w": np.ones(3)}, ema_decay=0.5)
    optimizer.step({"w": np.ones(3)})
    return optimizer


def fresh() -> Any:
    return instep.Adam({"w": np.ones(3)}, ema_decay=0.25)


def combined() -> Any:
    return instep.Combined(trained())


@pytest.mark.parametrize("way", ["pickle", "joblib"])
def test_a_stored_state_comes_back(way: str, tmp_path: Path) -> None:
    state = trained().state_dict()
    if way == "pickle":
        found = pickle.loads(pickle.dumps(state))
    else:
        joblib = pytest.importorskip("joblib")
        joblib.dump(state, tmp_path / "state")
        found = joblib.load(tmp_path / "state")
    optimizer, wanted = fresh(), fresh()
    optimizer.load_state_dict(found)
    wanted.load_state_dict(state)
    assert bits(optimizer) == bits(wanted)
    assert optimizer.step_count == 1


@pytest.mark.parametrize("allow_pickle", [False, True])
@pytest.mark.parametrize("as_is", [False, True])
@pytest.mark.parametrize("what", ["optimizer", "combined", "scaler"])
def test_savez_is_refused(what: str, as_is: bool, allow_pickle: bool, tmp_path: Path) -> None:
    one, other, number = {
        "optimizer": (trained(), fresh(), "schema"),
        "combined": (combined(), combined(), "schema"),
        "scaler": (instep.LossScaler(), instep.LossScaler(4.0), "growth_interval"),
    }[what]
    state = one.state_dict()
    np.savez(tmp_path / "state.npz", **state)
    before = other.state_dict()
    with np.load(tmp_path / "state.npz", allow_pickle=allow_pickle) as archive:
        keys = state if allow_pickle else [number]
        found: Mapping[str, Any] = archive if as_is else {key: archive[key] for key in keys}
        with pytest.raises(TypeError, match=re.escape(f"{number} {HINT}")):
            other.load_state_dict(found)
    assert str(other.state_dict()) == str(before)


@pytest.mark.parametrize(
    "make", [trained, combined, instep.LossScaler], ids=["optimizer", "combined", "scaler"]
)
def test_save_is_refused(make: Any, tmp_path: Path) -> None:
    one = make()
    np.save(tmp_path / "state.npy", one.state_dict(), allow_pickle=True)
    found = np.load(tmp_path / "state.npy", allow_pickle=True)
    with pytest.raises(TypeError, match=r"got an array that holds one; pass array.item\(\)"):
        one.load_state_dict(found)
    one.load_state_dict(found.item())
