"""What is done once for all parameters costs the same for each of them, however many there are."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import checkpoint, interop


def calls(action: Callable[[], Any]) -> int:
    """How many Python and C functions it calls, and how many lines it goes through."""
    count = 0

    def note(frame: Any, event: str, argument: Any) -> Any:
        nonlocal count
        count += 1
        return note

    before = sys.gettrace(), sys.getprofile()
    sys.setprofile(note)
    sys.settrace(note)
    try:
        action()
    finally:
        sys.settrace(before[0])
        sys.setprofile(before[1])
    return count


def params_of(count: int) -> dict[str, np.ndarray]:
    return {f"p{k}": column for k, column in enumerate(np.zeros((3, count)).T)}


def made(count: int) -> Any:
    optimizer = instep.Adam(params_of(count), ema_decay=0.5)
    optimizer.step({name: np.ones(3) for name in optimizer.params})
    optimizer.accumulate({name: np.ones(3) for name in optimizer.params})
    return optimizer


def construction(count: int, folder: Path) -> Callable[[], Any]:
    params = params_of(count)
    return lambda: instep.Adam(params, ema_decay=0.5)


def first_accumulation(count: int, folder: Path) -> Callable[[], Any]:
    optimizer = instep.Adam(params_of(count))
    grads = {name: np.ones(3) for name in optimizer.params}
    return lambda: optimizer.accumulate(grads)


def saving_and_loading(count: int, folder: Path) -> Callable[[], Any]:
    optimizer = made(count)
    return lambda: optimizer.load_state_dict(optimizer.state_dict())


def checkpoints(count: int, folder: Path) -> Callable[[], Any]:
    optimizer, path = made(count), folder / str(count)

    def both() -> None:
        checkpoint.save(path, optimizer)
        checkpoint.load(path, optimizer)

    return both


def torchs_form(count: int, folder: Path) -> Callable[[], Any]:
    optimizer = instep.Adam(params_of(count))
    optimizer.step({name: np.ones(3) for name in optimizer.params})
    return lambda: interop.from_torch_state_dict(optimizer, interop.to_torch_state_dict(optimizer))


def each_by_name(count: int, folder: Path) -> Callable[[], Any]:
    optimizer = made(count)

    def look() -> None:
        for name in optimizer.params:
            assert optimizer.params[name] is optimizer.param_groups[0]["params"][name]
            assert optimizer.state[name]["exp_avg"].size == optimizer.averages[name].size
            assert optimizer.accumulated[name].size == 3

    return look


@pytest.mark.parametrize(
    "prepare",
    [construction, first_accumulation, saving_and_loading, checkpoints, torchs_form, each_by_name],
    ids=lambda f: f.__name__,
)
def test_calls_grow_with_the_number_of_parameters(prepare: Any, tmp_path: Path) -> None:
    prepare(4, tmp_path)()  # what is imported on first use
    few, many = (calls(prepare(count, tmp_path)) for count in (100, 200))
    assert many <= 2.05 * few + 100


def test_what_is_shown_is_made_once() -> None:
    """A dict of all parameters for each look at one would be quadratic in them."""
    optimizer = made(3)
    assert optimizer.state is optimizer.state
    assert optimizer.params is optimizer.params
    assert optimizer.averages is optimizer.averages
    assert optimizer.accumulated is optimizer.accumulated
    assert optimizer.state["p1"] is optimizer.state["p1"]
    state = optimizer.state
    optimizer.load_state_dict(optimizer.state_dict())
    assert optimizer.state is state
    assert optimizer.state["p1"]["exp_avg"] is state["p1"]["exp_avg"]


def test_what_has_been_accumulated_is_shown_as_of_now() -> None:
    optimizer = instep.Adam(params_of(3))
    seen = [optimizer.accumulated]
    grads = {name: np.ones(3) for name in optimizer.params}
    for change in (
        lambda: optimizer.accumulate({"p0": None, "p1": np.ones(3), "p2": None}),
        lambda: optimizer.accumulate(grads),
        lambda: optimizer.load_state_dict(instep.Adam(params_of(3)).state_dict()),
        lambda: optimizer.accumulate(grads),
        optimizer.step,
        lambda: optimizer.accumulate({"p2": None, "p0": np.ones(3), "p1": None}),
        optimizer.discard_accumulated,
    ):
        change()
        seen.append(optimizer.accumulated)
    names = [sorted(shown) for shown in seen]
    every = sorted(grads)
    assert names == [[], ["p1"], every, [], every, [], ["p0"], []]
