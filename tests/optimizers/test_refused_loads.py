"""A refused load has changed nothing; another takes the elements, whatever the arrays' class says."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from reference import assert_same_bits
from snapshots import snapshot

import instep
from instep import checkpoint


class Metres(np.ndarray):
    """With a unit: what has none is neither taken in nor computed with, and copies are forbidden."""

    def __setitem__(self, key: Any, value: Any) -> None:
        raise TypeError("metres are wanted")

    def __array_ufunc__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("metres are wanted")

    def copy(self, order: Any = "C") -> Any:
        raise TypeError("no copies")


class Lying(np.ndarray):
    """Says of itself what it is not."""

    shape = property(lambda self: (99,))  # type: ignore[assignment]
    dtype = property(lambda self: np.dtype("f8"))  # type: ignore[assignment]
    strides = property(lambda self: (0,))  # type: ignore[assignment]
    size = property(lambda self: 7)  # type: ignore[assignment]
    ndim = property(lambda self: 3)  # type: ignore[assignment]


CLASSES = [Metres, Lying]
classes = pytest.mark.parametrize("cls", CLASSES)


def bits_of(array: np.ndarray) -> bytes:
    return np.asarray(array).tobytes()


def made(cls: Any = None) -> tuple[Any, dict[str, np.ndarray]]:
    plain = {"a": np.arange(1.0, 5.0, dtype="f4"), "b": np.ones(4, "f4")}
    params = plain if cls is None else {name: array.view(cls) for name, array in plain.items()}
    optimizer = instep.Adam(params, lr=0.5, ema_decay=0.5)
    for scale in (1.0, -3.0):
        optimizer.step({name: np.full(4, scale) for name in params})
    optimizer.accumulate({name: np.full(4, 2.0) for name in params})
    return optimizer, plain


@classes
def test_parameters_of_a_subclass_are_stepped_averaged_and_saved(cls: Any, tmp_path: Path) -> None:
    """Their elements are written where they lie: no method of the class is asked."""
    optimizer, plain = made(cls)
    twin, wanted = made()
    for name, array in plain.items():
        assert_same_bits(array, wanted[name], name)
    before = {name: bits_of(array) for name, array in plain.items()}
    with optimizer.averaged(), twin.averaged():
        for name, array in plain.items():
            assert_same_bits(array, wanted[name], name)
        assert bits_of(plain["a"]) != before["a"]
    assert {name: bits_of(array) for name, array in plain.items()} == before
    optimizer.refresh_copies()
    state = optimizer.state_dict()
    checkpoint.save(tmp_path / "run", optimizer)
    optimizer.step()
    optimizer.load_state_dict(state)
    checkpoint.load(tmp_path / "run", optimizer)
    assert {name: bits_of(array) for name, array in plain.items()} == before
    assert type(optimizer.params["a"]) is cls


@pytest.mark.parametrize("k", range(2))
@classes
def test_a_load_that_is_refused_changes_nothing(cls: Any, k: int, tmp_path: Path) -> None:
    """Wherever the bad array is, among good ones of any class."""
    optimizer, plain = made(cls)
    good = optimizer.state_dict()
    checkpoint.save(tmp_path / "run", optimizer)
    optimizer.step()
    counts, before = optimizer.state_dict(), {name: bits_of(a) for name, a in plain.items()}
    for bad in (np.zeros(5, "f4"), np.zeros(4), np.zeros(4, "f4")[::-1].astype(">f4"), [0.0] * 4):
        state = copy.deepcopy(good)
        state["state"]["ab"[k]]["exp_avg_sq"] = bad
        with pytest.raises((TypeError, ValueError), match=f"'exp_avg_sq' of '{'ab'[k]}'"):
            optimizer.load_state_dict(state)
    name = "ab"[k]
    plain[name].setflags(write=False)
    optimizer.params[name].setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        checkpoint.load(tmp_path / "run", optimizer)
    with pytest.raises(ValueError, match="read-only"):
        optimizer.load_state_dict(good)
    assert {name: bits_of(a) for name, a in plain.items()} == before
    now = optimizer.state_dict()
    assert pickle.dumps(now) == pickle.dumps(counts)


def test_states_that_are_exchanged_with_each_other() -> None:
    """Those in use, not copies: each gets what the other held."""
    optimizer, _ = made()
    optimizer.step({"a": np.full(4, 7.0), "b": None})
    held = {name: {k: v.copy() for k, v in s.items()} for name, s in optimizer.state.items()}
    state = optimizer.state_dict()
    state["state"]["a"], state["state"]["b"] = optimizer.state["b"], optimizer.state["a"]
    state["averages"]["a"], state["averages"]["b"] = (
        optimizer.averages["b"],
        optimizer.averages["a"],
    )
    averages = {name: array.copy() for name, array in optimizer.averages.items()}
    optimizer.load_state_dict(state)
    for mine, theirs in (("a", "b"), ("b", "a")):
        for key, values in held[theirs].items():
            assert_same_bits(optimizer.state[mine][key], values, f"{key} of {mine}")
        assert_same_bits(optimizer.averages[mine], averages[theirs], mine)


def test_a_state_shifted_by_one_element_within_itself() -> None:
    optimizer = instep.Momentum(np.zeros(1000))
    optimizer.step(np.arange(1000.0))
    state = optimizer.state_dict()
    buffer = optimizer.state["0"]["momentum_buffer"]
    wanted = buffer[::-1].copy()
    state["state"]["0"]["momentum_buffer"] = buffer[::-1]
    optimizer.load_state_dict(state)
    assert_same_bits(buffer, wanted)


def mapped(array: np.ndarray, folder: Path) -> np.ndarray:
    array.tofile(folder / "array")
    return np.memmap(folder / "array", array.dtype, "r")


def read_only(array: np.ndarray) -> np.ndarray:
    array.setflags(write=False)
    return array


TAKEN: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "units": lambda a, _: a.view(Metres),
    "lies": lambda a, _: a.view(Lying),
    "a memory map": mapped,
    "read-only": lambda a, _: read_only(a),
    "strided": lambda a, _: np.repeat(a, 3)[::3],
    "matrix": lambda a, _: a.view(np.recarray),
}
REFUSED: dict[str, tuple[Callable[[np.ndarray], Any], str]] = {
    "masked": (lambda a: np.ma.masked_equal(a, 0), "must be a plain NumPy array, got a "),
    "masked, of nothing": (np.ma.array, "must be a plain NumPy array, got a "),
    "objects": (lambda a: a.astype(object), "got .* and object"),
    "a list": (lambda a: a.tolist(), "must be a NumPy array, got "),
    "another dtype that lies": (lambda a: a.astype("i4").view(Lying), "got .* and int32"),
    "another shape that lies": (lambda a: a[:-1].view(Lying), r"got \(3,\) and "),
    "a scalar": (lambda a: a[0], "must be a NumPy array, got "),
    "None": (lambda a: None, "must be a NumPy array, got None"),
    "bfloat16": (lambda a: a.astype(BFLOAT16), "must .*float32, got .*bfloat16"),
}


PLACES = ["state", "averages", "accumulated"]


def put(state: dict[str, Any], place: str, array: Any) -> None:
    if place == "state":
        state["state"]["b"]["exp_avg"] = array
    else:
        state[place]["b"] = array


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("make", TAKEN.values(), ids=TAKEN)
def test_arrays_of_other_classes_are_taken(make: Any, place: str, tmp_path: Path) -> None:
    optimizer, _ = made()
    state = optimizer.state_dict()
    wanted = np.array([0.5, 0.25, -0.0, 3.0], "f4")
    put(state, place, make(wanted.copy(), tmp_path))
    optimizer.load_state_dict(state)
    found = getattr(optimizer, place)["b"]
    assert_same_bits(found["exp_avg"] if place == "state" else found, wanted)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_plain_array_of_that_kind_is_refused(
    make: Any, message: str, place: str
) -> None:
    optimizer, _ = made()
    before, state = snapshot(optimizer), optimizer.state_dict()
    put(state, place, make(np.ones(4, "f4")))
    with pytest.raises((TypeError, ValueError), match=f"of 'b' .*{message}"):
        optimizer.load_state_dict(state)
    assert snapshot(optimizer) == before
