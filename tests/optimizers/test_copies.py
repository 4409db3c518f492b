"""Copies and pickles have the arrays that are stepped, and all that whoever has the optimizer has set on it."""

from __future__ import annotations

import copy
import pickle
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import instep

AGAIN: dict[str, Callable[[Any], Any]] = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "pickle 2": lambda x: pickle.loads(pickle.dumps(x, protocol=2)),
}
again = pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)


def ones(value: float = 1.0, dtype: str = "f8") -> np.ndarray:
    return np.full(3, value, dtype)


def replace(container: Any) -> None:
    container["w" if isinstance(container, dict) else 0] = ones(7)


def grow(container: Any) -> None:
    if isinstance(container, dict):
        container["more"] = ones(7)
    else:
        container.insert(0, ones(7))


def shrink(container: Any) -> None:
    container.pop("w" if isinstance(container, dict) else 0)


def arrays_of(container: Any) -> list[np.ndarray]:
    if isinstance(container, np.ndarray):
        return [container]
    return list(container.values() if isinstance(container, dict) else container)


def gradients_of(container: Any) -> Any:
    if isinstance(container, dict):
        return {name: ones() for name in container}
    return ones() if isinstance(container, np.ndarray) else [ones() for _ in container]


CHANGES = [replace, grow, shrink, lambda container: container.clear()]
CONTAINERS: dict[str, Callable[[], tuple[Any, Any]]] = {  # what is given, and what of it is changed
    "dict": lambda: (given := {"w": ones(1), "b": ones(2)}, given),
    "list": lambda: (given := [ones(1), ones(2)], given),
    "group's dict": lambda: ([{"params": (given := {"w": ones(1), "b": ones(2)})}], given),
    "group's list": lambda: (
        [{"params": (given := [ones(1), ones(2)])}, {"params": ones(3)}],
        given,
    ),
}


@pytest.mark.filterwarnings("ignore:.* in the container:RuntimeWarning")
@again
@pytest.mark.parametrize("change", CHANGES, ids=["replace", "grow", "shrink", "clear"])
@pytest.mark.parametrize("container", CONTAINERS.values(), ids=CONTAINERS)
def test_a_copy_has_the_arrays_that_are_stepped(container: Any, change: Any, again: Any) -> None:
    """Whatever the container that they came in holds by now; and the groups show these, too."""
    params, changed = container()
    optimizer = instep.Momentum(params, lr=1.0)
    stepped = dict(optimizer.params)
    assert [p[0] for p in stepped.values()][:2] == [1.0, 2.0]
    change(changed)
    twin = again(optimizer)
    for made in (optimizer, twin):
        shown = [array for group in made.param_groups for array in arrays_of(group["params"])]
        assert made.params.keys() == stepped.keys()
        assert all(a is b for a, b in zip(shown, made.params.values(), strict=True))
    for name, array in stepped.items():
        assert twin.params[name] is not array
        assert twin.params[name].tolist() == array.tolist()
    grads = [gradients_of(group["params"]) for group in twin.param_groups]
    twin.step(grads if params is not changed else grads[0])
    for name, array in stepped.items():
        assert (twin.params[name] == array - 1.0).all()
        assert (twin.state[name]["momentum_buffer"] == 1.0).all()


@again
@pytest.mark.parametrize("change", CHANGES, ids=["replace", "grow", "shrink", "clear"])
def test_a_copy_has_the_copies_that_are_written(change: Any, again: Any) -> None:
    halves = {"w": ones(dtype="f2"), "b": ones(dtype="f2")}
    optimizer = instep.SGD({"w": ones(), "b": ones()}, lr=1.0, copy_to=halves)
    written = dict(halves)
    change(halves)
    together = again((optimizer, written))
    twin, copies = together
    twin.step({"w": ones(), "b": ones(2)})
    assert [copies[name].tolist() for name in "wb"] == [[0.0] * 3, [-1.0] * 3]
    assert [half.tolist() for half in written.values()] == [[1.0] * 3] * 2


@again
def test_arrays_beside_the_optimizer_are_its_own(again: Any) -> None:
    model = {"w": ones()}
    optimizer = instep.SGD(model, lr=1.0)
    for pair in ((model, optimizer), (optimizer, model)):
        twins = again(pair)
        twin_model, twin = twins if pair[0] is model else reversed(twins)
        twin.step({"w": ones()})
        assert twin_model["w"].tolist() == [0.0] * 3
    assert model["w"].tolist() == [1.0] * 3


# ---- a schedule that leads back ------------------------------------------------------------------------


class Trainer:
    """Holds its optimizer, whose learning rate is a method of its own."""

    def __init__(self) -> None:
        self.rate = 0.5
        self.w = ones()
        self.optimizer = instep.Momentum(self.w, lr=self.lr)
        self.optimizer.step(ones())

    def lr(self, step: int) -> float:
        return self.rate


@again
def test_a_schedule_that_is_a_method_of_what_holds_the_optimizer(again: Any) -> None:
    trainer = Trainer()
    whole = again(trainer)
    assert whole.optimizer.lr.__self__ is whole
    alone = again(trainer.optimizer)
    assert alone.lr.__self__ is not trainer
    assert alone.lr.__self__.optimizer is alone
    for twin in (whole.optimizer, alone):
        owner = twin.lr.__self__
        assert owner.w is twin.params["0"]
        before = twin.params["0"][0]
        owner.rate = 0.25
        twin.step(np.zeros(3))
        assert twin.params["0"][0] == before - 0.25 * 0.9
    assert trainer.rate == 0.5
    assert trainer.optimizer.step_count == 1
    assert trainer.w.tolist() == [0.5] * 3


# ---- what has been set on it ---------------------------------------------------------------------------


class Named(instep.SGD):
    """With arguments of its own, and more in its __dict__."""

    def __init__(self, name: str, size: int) -> None:
        super().__init__({name: np.ones(size)}, lr=0.5)
        self.name = name
        self.log: list[Any] = [self]


class Slotted(instep.Adam):
    """With slots, one of them its own alone."""

    __slots__ = ("__secret", "note", "unset")

    def __init__(self, *, note: str) -> None:
        super().__init__(ones())
        self.note = note
        self.__secret = [note]

    def secret(self) -> list[str]:
        return self.__secret


@again
def test_what_a_subclass_sets_survives(again: Any) -> None:
    named = Named("weights", 4)
    named.later = {"w": named.params["weights"]}  # type: ignore[attr-defined]
    twin = again(named)
    assert (type(twin), twin.name, twin.lr) == (Named, "weights", 0.5)
    assert twin.log == [twin]
    assert twin.later["w"] is twin.params["weights"]
    slotted = Slotted(note="é")
    other = again(slotted)
    assert (other.note, other.secret()) == ("é", ["é"])
    assert other.secret() is not slotted.secret()
    assert not hasattr(other, "unset")
    other.step(ones())
    assert (slotted.step_count, other.step_count) == (0, 1)


@again
def test_a_copy_of_a_group_is_a_plain_dict(again: Any) -> None:
    optimizer = instep.Adam([{"params": [ones()], "lr": 0.25}, {"params": {"w": ones(2)}}])
    groups = again(optimizer.param_groups)
    assert [type(group) for group in groups] == [dict, dict]
    assert groups[0]["lr"] == 0.25
    assert groups[1]["params"]["w"].tolist() == [2.0] * 3
    assert groups[0].keys() == optimizer.param_groups[0].keys()
    groups[0]["lr"] = 3.0
    groups[1]["params"]["w"][...] = 0
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert optimizer.params["w"].tolist() == [2.0] * 3


# ---- memory --------------------------------------------------------------------------------------------


def test_a_deep_copy_holds_no_state_twice() -> None:
    """At its peak there are the copy's arrays, once, and little else; NumPy tells tracemalloc of its memory."""
    size = 300_000
    optimizer = instep.Adam(np.ones(size, "f4"), ema_decay=0.5)
    optimizer.accumulate(np.ones(size, "f4"))
    arrays = 5 * 4 * size  # the parameter, two states, the average, the sum
    tracemalloc.start()
    try:
        twin = copy.deepcopy(optimizer)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert twin.accumulated["0"][0] == 1.0
    assert arrays <= peak < 1.1 * arrays
