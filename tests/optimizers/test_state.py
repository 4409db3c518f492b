"""State as plain data, copies and pickles: a resumed run equals the uninterrupted one bit for bit."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, VARIANTS, Variant, fitting
from reference import assert_same_bits
from short_run import STOP, arrays

import instep
from instep import schedules


def assert_equal(a: Any, b: Any) -> None:
    assert (a.step_count, a.skipped_steps) == (b.step_count, b.skipped_steps)
    assert a._plan.steps == b._plan.steps
    for x, y in ((a.params, b.params), (a.averages, b.averages), (a.accumulated, b.accumulated)):
        assert x.keys() == y.keys()
        for name in x:
            assert_same_bits(x[name], y[name], name)
    for name, states in a.state.items():
        for key, values in states.items():
            assert_same_bits(values, b.state[name][key], f"{key} of {name}")


def resumed_by_state_dict(optimizer: Any, make: Any) -> Any:
    fresh = make({name: p.copy() for name, p in optimizer.params.items()})
    fresh.load_state_dict(optimizer.state_dict())
    return fresh


def resumed_by_pickle(optimizer: Any, make: Any) -> Any:
    return pickle.loads(pickle.dumps(optimizer))


def resumed_by_deepcopy(optimizer: Any, make: Any) -> Any:
    return copy.deepcopy(optimizer)


RESUMED = [resumed_by_state_dict, resumed_by_pickle, resumed_by_deepcopy]


# Every variant in every way and in three of the dtypes: how a state is taken out and put back knows no formula.
RUNS = [
    pytest.param(variant, DTYPES[(k + n) % len(DTYPES)], resume, id=f"{variant}-{resume.__name__}")
    for k, variant in enumerate(VARIANTS)
    for n, resume in enumerate(RESUMED)
]


@pytest.mark.parametrize(("variant", "dtype", "resume"), RUNS)
def test_a_resumed_run_is_the_uninterrupted_one(variant: Variant, dtype: Any, resume: Any) -> None:
    params, grads = arrays(dtype)
    more: dict[str, Any] = {
        "lr": schedules.CosineDecay(0.1, steps=9),
        "ema_decay": 0.75,
        "nonfinite": "skip",
        "state_dtype": BFLOAT16,
    }

    def make(values: Any) -> Any:
        return variant.make(values, **fitting(variant, more, *(p.dtype for p in params.values())))

    whole = make({name: p.copy() for name, p in params.items()})
    first = make({name: p.copy() for name, p in params.items()})
    for optimizer in (whole, first):
        for grad in grads[:STOP]:
            optimizer.step(grad)
        optimizer.step({"w": np.full((4, 5), np.nan), "b": None})
        optimizer.accumulate({"w": grads[STOP]["w"], "b": None})
    second = resume(first, make)
    assert_equal(first, second)
    for optimizer in (whole, second):
        for grad in grads[STOP + 1 :]:
            optimizer.step(grad)
    assert_equal(whole, second)
    assert first.step_count == STOP, "the first one has not been stepped along"


def test_hyperparameters_are_loaded() -> None:
    first = instep.Adam(
        [{"params": np.zeros(1), "betas": (0.5, schedules.Linear(0.9, 0.99, 10))}],
        lr=schedules.Warmup(schedules.Constant(0.1), 5),
        clip_norm=2.0,
    )
    first.param_groups[0]["weight_decay"] = 0.25
    second = instep.Adam([{"params": np.zeros(1)}])
    second.load_state_dict(
        json.loads(json.dumps(without_arrays(first.state_dict()))) | arrays_of(first)
    )
    assert dict(second.param_groups[0]) == {
        **first.param_groups[0],
        "params": second.param_groups[0].params,
    }
    assert second.clip_norm == 2.0


def without_arrays(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in state.items() if k not in ("state", "averages", "accumulated")}


def arrays_of(optimizer: Any) -> dict[str, Any]:
    return {k: optimizer.state_dict()[k] for k in ("state", "averages", "accumulated")}


def test_a_function_of_the_users_own_must_be_there() -> None:
    def rate(step: int) -> float:
        return 0.1 / (1 + step)

    state = instep.SGD(np.zeros(1), lr=rate).state_dict()
    assert "rate" in state["param_groups"][0]["lr"]["callable"]
    for other in (0.1, instep.schedules.Constant(0.1)):
        with pytest.raises(
            ValueError,
            match=r"lr.*: a stored schedule must be of .*, got the callable '.*rate'; make",
        ):
            instep.SGD(np.zeros(1), lr=other).load_state_dict(state)
    same = instep.SGD(np.zeros(1), lr=rate)
    same.load_state_dict(state)
    assert same.lr is rate


def test_a_deep_copy_steps_arrays_of_its_own_and_keeps_its_containers() -> None:
    model = {"w": np.ones(3), "half": np.ones(3, "f2")}
    optimizer = instep.SGD([{"params": [model["w"]], "lr": 0.5}], copy_to=[[model["half"]]])
    twin_model, twin = copy.deepcopy((model, optimizer))
    twin.step([[np.ones(3)]])
    assert model["w"].tolist() == [1.0] * 3
    assert twin_model["w"].tolist() == [0.5] * 3, (
        "arrays shared before the copy are shared after it"
    )
    assert twin_model["half"].tolist() == [0.5] * 3
    with optimizer_with_averages().averaged():
        pass
    averaged = optimizer_with_averages()
    with averaged.averaged(), pytest.raises(RuntimeError, match="copy must come after the block"):
        copy.deepcopy(averaged)


class SteppedMeanwhile(np.ndarray):
    """An array that waits for another thread's step as it is copied."""

    thread: threading.Thread

    def __deepcopy__(self, memo: Any) -> np.ndarray:
        self.thread.start()
        self.thread.join(0.3)
        return np.array(self)


def test_a_deep_copy_is_made_between_steps_of_another_thread() -> None:
    w = np.ones(3).view(SteppedMeanwhile)
    optimizer = instep.SGD(w, lr=1.0)
    w.thread = threading.Thread(target=optimizer.step, args=(np.ones(3),))
    twin = copy.deepcopy(optimizer)
    w.thread.join()
    assert (twin.step_count, twin.params["0"].tolist()) == (0, [1.0] * 3)
    assert (optimizer.step_count, w.tolist()) == (1, [0.0] * 3)


def optimizer_with_averages() -> Any:
    return instep.SGD(np.zeros(1), ema_decay=0.5)


def test_an_optimizer_frees_its_arrays_at_once() -> None:
    """No reference cycle: states of a large model must not wait for the garbage collector."""
    gc.disable()
    try:
        optimizer = instep.Adam(np.zeros(10), lr=schedules.Constant(0.1), ema_decay=0.5)
        optimizer.step(np.ones(10))
        state = weakref.ref(optimizer.state["0"]["exp_avg"])
        group = optimizer.param_groups[0]
        del optimizer
        assert state() is None
        group["lr"] = 0.5  # a group left over can still be read and set
        assert group["lr"] == 0.5
    finally:
        gc.enable()
