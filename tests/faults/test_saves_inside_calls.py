"""A save on the thread of a call that runs Python's code, as from a signal handler or a schedule: docs/faults.md."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import checkpoint


class Everywhere:
    """A schedule, also while it is copied, and a gradient: they call a function."""

    def __init__(self) -> None:
        self.call: Callable[[], None] = lambda: None

    def __call__(self, step: int) -> float:
        self.call()
        return 0.5

    def __deepcopy__(self, memo: dict[int, Any]) -> Everywhere:
        self.call()
        return self

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        self.call()
        return np.ones(3)


@pytest.mark.parametrize(
    "call",
    [
        lambda optimizer, gradient: optimizer.step(np.ones(3)),
        lambda optimizer, gradient: optimizer.step(gradient),
        lambda optimizer, gradient: optimizer.accumulate(gradient),
        lambda optimizer, gradient: copy.deepcopy(optimizer),
    ],
    ids=["schedule", "gradient", "accumulate", "deepcopy"],
)
def test_saves_inside_the_calls_that_run_python(
    call: Callable[[instep.Optimizer, Any], Any], tmp_path: Path
) -> None:
    """They see what there was before the call, and are refused whatever would change it."""
    rate, gradient = Everywhere(), Everywhere()
    w = np.zeros(3)
    optimizer = instep.Momentum(w, lr=rate, momentum=0.5)
    optimizer.step(np.ones(3))
    before = optimizer.state_dict()
    path = tmp_path / "w.safetensors"
    found: list[Any] = []

    def interrupt() -> None:
        rate.call = gradient.call = lambda: None
        found.append(optimizer.state_dict())
        found.append(copy.deepcopy(optimizer).state_dict())
        with optimizer._plan.reading():  # what a pickle does; it can't take these schedules
            found.append(optimizer.state_dict())
        checkpoint.save(path, optimizer)
        for change in (
            lambda: optimizer.load_state_dict(before),
            lambda: optimizer.step(np.ones(3)),
            lambda: optimizer.accumulate(np.ones(3)),
            optimizer.discard_accumulated,
        ):
            with pytest.raises(RuntimeError, match="in the middle of its own step"):
                change()

    rate.call = gradient.call = interrupt
    call(optimizer, gradient)
    assert len(found) == 3
    for state in found:
        np.testing.assert_equal(state, before)
    loaded = instep.Momentum(np.full(3, 7.0), lr=rate, momentum=0.5)
    checkpoint.load(path, loaded)
    np.testing.assert_equal(loaded.state_dict(), before)
    assert (loaded.params["0"] == -0.5).all()


def test_a_read_in_the_middle_of_a_load_is_refused() -> None:
    """There it would see arrays of two runs."""
    optimizer = instep.SGD(np.zeros(3), lr=0.5)
    refused: list[RuntimeError] = []

    class Saving(dict[str, Any]):
        def __getitem__(self, name: str) -> Any:
            with pytest.raises(RuntimeError, match="in the middle of its own step") as error:
                optimizer.state_dict()
            refused.append(error.value)
            return super().__getitem__(name)

    optimizer.load_state_dict(Saving(optimizer.state_dict()))
    assert refused


def test_a_pickle_inside_a_gradient() -> None:
    """With everything as it was before the step."""
    w = np.zeros(3)
    optimizer = instep.SGD(w, lr=0.5)
    copies: list[instep.Optimizer] = []

    class Gradient:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            copies.append(pickle.loads(pickle.dumps(optimizer)))
            return np.ones(3)

    optimizer.step(np.ones(3))
    optimizer.step(Gradient())
    (twin,) = copies
    assert (twin.step_count, optimizer.step_count) == (1, 2)
    assert (twin.params["0"] == -0.5).all()
    assert (w == -1.0).all()
