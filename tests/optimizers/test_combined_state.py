"""Combined: states, copies and pickles go on to the bit, and what is read of it."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from combined_reference import assert_combined_follows
from combined_reference import made as twins
from reference import assert_same_bits
from snapshots import bits

import instep
from instep import schedules

START: list[dict[str, np.ndarray]] = [
    {"a": np.linspace(-1, 1, 12).reshape(3, 4), "b": np.linspace(0, 1, 5, dtype="f4")},
    {"c": np.linspace(1, 2, 7, dtype="f4")},
]


def made(lr: Any = 0.1) -> instep.Combined:
    first = instep.Momentum({n: p.copy() for n, p in START[0].items()}, lr=lr)
    second = instep.Adam({n: p.copy() for n, p in START[1].items()}, lr=lr, ema_decay=0.5)
    return instep.Combined(first, second, clip_norm=1.0, nonfinite="skip")


def grads(k: int) -> dict[str, Any]:
    rng = np.random.default_rng(k)
    return {name: rng.standard_normal(p.shape) for own in START for name, p in own.items()}


def all_bits(combined: instep.Combined) -> Any:
    counts = combined.step_count, combined.skipped_steps, combined.clip_norm
    return [bits(optimizer) for optimizer in combined.optimizers], counts


def loaded(combined: instep.Combined) -> instep.Combined:
    other = made()
    other.step(grads(9))
    for name, p in combined.params.items():
        other.params[name][...] = p
    other.load_state_dict(combined.state_dict())
    return other


AGAIN: dict[str, Callable[[instep.Combined], instep.Combined]] = {
    "state_dict": loaded,
    "deepcopy": copy.deepcopy,
    "pickle": lambda combined: pickle.loads(pickle.dumps(combined)),
    "pickle 2": lambda combined: pickle.loads(pickle.dumps(combined, protocol=2)),
}


@pytest.mark.parametrize("again", AGAIN.values(), ids=AGAIN)
def test_a_run_goes_on_to_the_bit(again: Any) -> None:
    combined = made()
    combined.step(grads(1))
    combined.step({**grads(2), "c": np.full(7, np.inf)})
    combined.accumulate(grads(3))
    twin = again(combined)
    assert all_bits(twin) == all_bits(combined)
    assert (twin.step_count, twin.skipped_steps, twin.nonfinite) == (1, 1, "skip")
    for one in (combined, twin):
        one.step(grads(4))
        one.step(grads(5))
    assert all_bits(twin) == all_bits(combined)
    assert twin.grad_norm == combined.grad_norm
    for name, p in twin.params.items():
        assert not np.shares_memory(p, combined.params[name])


def test_the_reference_goes_on_after_a_load() -> None:
    members: Any = [("Momentum", START[0], {}), ("Adam", START[1], {"ema_decay": 0.5})]
    combined, reference = twins(members, clip_norm=1.0)
    for k in range(4):
        own = [{name: grads(k)[name] for name in part} for part in START]
        combined.step(own)
        reference.step(own)
        combined = copy.deepcopy(combined) if k % 2 else pickle.loads(pickle.dumps(combined))
        reference.grad_norm = None  # of the last step; the copy has taken none
        assert_combined_follows(combined, reference)


def test_what_is_copied_together_stays_together() -> None:
    model = {"a": np.ones(2), "c": np.ones(3)}
    optimizers = instep.SGD({"a": model["a"]}, lr=1.0), instep.SGD({"c": model["c"]}, lr=1.0)
    combined = instep.Combined(*optimizers)
    for again in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        twin_model, twin, (first, second) = again((model, combined, optimizers))
        assert twin.optimizers == (first, second)
        twin.step({"a": np.ones(2), "c": np.ones(3)})
        assert twin_model["a"][0] == twin_model["c"][0] == 0.0
        assert twin.params["a"] is twin_model["a"]
    assert model["a"][0] == 1.0
    shallow = copy.copy(combined)
    assert shallow.optimizers == combined.optimizers
    shallow.step({"a": np.ones(2), "c": np.ones(3)})
    assert (model["a"][0], combined.step_count, shallow.step_count) == (0.0, 0, 1)


def test_one_schedule_of_several_stays_one() -> None:
    plateau = schedules.ReduceOnPlateau(0.5, patience=1)
    combined = made(plateau)
    combined.clip_norm = plateau * 2.0
    combined.step(grads(1))
    for _ in range(3):
        plateau.observe(1.0)
    state = combined.state_dict()
    other = made(1.0)
    other.clip_norm = schedules.Constant(1.0)
    other.load_state_dict(state)
    first, second = (optimizer.lr for optimizer in other.optimizers)
    assert first is second
    assert first == plateau
    assert copy.deepcopy(combined).optimizers[0].lr is not plateau
    present = schedules.ReduceOnPlateau(0.7)
    again = made(present)
    again.load_state_dict(state)
    assert again.optimizers[1].lr is present
    assert present == plateau


def test_a_schedule_of_the_limit_and_of_a_rate_stays_one() -> None:
    plateau, present = schedules.ReduceOnPlateau(0.5), schedules.ReduceOnPlateau(0.25)
    combined, other = made(plateau), made()
    combined.clip_norm, other.clip_norm = plateau, present
    other.load_state_dict(combined.state_dict())
    assert all(one is present for one in (other.clip_norm, *(o.lr for o in other.optimizers)))
    assert present == plateau


class Derived(instep.Combined):
    __slots__ = ("__dict__", "epoch")


def test_a_class_of_your_own_keeps_its_attributes() -> None:
    combined = Derived(instep.SGD([np.ones(2)]))
    combined.epoch, combined.note = 3, "here"  # type: ignore[attr-defined]
    for again in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        twin = again(combined)
        assert (type(twin), twin.epoch, twin.note) == (Derived, 3, "here")
        twin.step([[np.ones(2)]])


WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "of one optimizer": (
        lambda s: s["optimizers"][0],
        r"must be of a Combined, got a state of one optimizer \('Momentum'\); load it into an",
    ),
    "keys": (lambda s: {**s, "more": 1}, "unknown: 'more'"),
    "schema": (lambda s: {**s, "schema": 3}, "the schema of the state must be 1 to 2, got 3"),
    "one missing": (
        lambda s: {**s, "optimizers": s["optimizers"][:1]},
        "optimizers of the state must be a list of 2, got a list of 1",
    ),
    "no list": (
        lambda s: {**s, "optimizers": tuple(s["optimizers"])},
        "optimizers of the state must be a list of 2, got a tuple of 2",
    ),
    "a number": (
        lambda s: {**s, "optimizers": 2},
        "optimizers of the state must be a list of 2, got an int",
    ),
    "the other order": (
        lambda s: {**s, "optimizers": s["optimizers"][::-1]},
        r"^optimizers\[0\]: the rule of the state must be 'Momentum', got 'Adam'",
    ),
    "count": (lambda s: {**s, "step_count": -1}, "step_count must be a count of steps"),
    "limit": (lambda s: {**s, "clip_norm": -1.0}, r"clip_norm must be .*, got -1\.0"),
    "array": (
        lambda s: s["optimizers"][1]["state"]["c"].update(exp_avg=np.ones(3, "f4")) or s,
        r"^optimizers\[1\]: state 'exp_avg' of 'c' must have shape \(7,\)",
    ),
    "hyperparameter": (
        lambda s: s["optimizers"][1]["param_groups"][0].update(lr=-1.0) or s,
        r"^optimizers\[1\]: lr must be .*, got -1\.0",
    ),
    "limit of one": (
        lambda s: s["optimizers"][1].update(clip_norm=1.0) or s,
        r"^clip_norm of optimizers\[1\] must be None in a Combined, got 1\.0",
    ),
    "no dicts": (
        lambda s: {**s, "optimizers": [1, 2]},
        r"^optimizers\[0\]: the state must be a dict",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_states_that_are_refused(case: str) -> None:
    change, message = WRONG[case]
    combined = made()
    combined.step(grads(1))
    state = change(combined.state_dict())
    combined.step(grads(2))
    before = all_bits(combined)
    with pytest.raises((TypeError, ValueError), match=message):
        combined.load_state_dict(state)
    assert all_bits(combined) == before


def test_a_state_of_a_combined_is_none_of_an_optimizer() -> None:
    combined = made()
    with pytest.raises(
        ValueError, match="must be of one optimizer, got a state of a Combined; load"
    ):
        combined.optimizers[0].load_state_dict(combined.state_dict())
    combined.optimizers[0].load_state_dict(combined.state_dict()["optimizers"][0])


def test_an_array_that_was_made_read_only_refuses_the_load_for_all() -> None:
    combined = made()
    combined.step(grads(1))
    state = combined.state_dict()
    combined.step(grads(2))
    array = combined.optimizers[1].state["c"]["exp_avg_sq"]
    array.setflags(write=False)
    before = all_bits(combined)
    with pytest.raises(ValueError, match="must be writeable to be loaded"):
        combined.load_state_dict(state)
    assert all_bits(combined) == before


def test_states_that_are_exchanged_between_the_optimizers() -> None:
    """The arrays in use of one are the other's new ones: read before they are written."""
    params = [{"w": np.ones(5)}, {"v": np.ones(5)}]
    combined = instep.Combined(*(instep.Momentum(p) for p in params))
    combined.step([{"w": np.arange(5.0)}, {"v": np.full(5, 7.0)}])
    state = combined.state_dict()
    buffers = combined.state["w"]["momentum_buffer"], combined.state["v"]["momentum_buffer"]
    state["optimizers"][0]["state"]["w"]["momentum_buffer"] = buffers[1]
    state["optimizers"][1]["state"]["v"]["momentum_buffer"] = buffers[0]
    combined.load_state_dict(state)
    assert_same_bits(buffers[0], np.full(5, 7.0))
    assert_same_bits(buffers[1], np.arange(5.0))


def test_warnings_name_the_place() -> None:
    def rate(step: int) -> float:
        return 0.1

    def other(step: int) -> float:
        return 0.1

    combined = made(rate)
    state = combined.state_dict()
    combined.optimizers[1].lr = other
    with pytest.warns(
        UserWarning, match=r"^optimizers\[1\]: param_groups\[0\]\['lr'\] was saved"
    ) as w:
        combined.load_state_dict(state)
    assert w[0].filename == __file__
    combined.optimizers[1].lr = combined.clip_norm = rate
    state = combined.state_dict()
    combined.clip_norm = other
    with pytest.warns(UserWarning, match=r"^clip_norm was saved with the callable '.*rate'") as w:
        combined.load_state_dict(state)
    assert len(w) == 1


def test_views() -> None:
    combined = made()
    assert list(combined.params) == ["a", "b", "c"]
    assert combined.params is combined.params
    first, second = combined.optimizers
    assert combined.params["c"] is second.params["c"]
    assert combined.state["a"]["momentum_buffer"] is first.state["a"]["momentum_buffer"]
    assert list(combined.averages) == ["c"]
    assert not combined.accumulated
    combined.accumulate(grads(1))
    assert combined.accumulated["c"] is second.accumulated["c"]
    with pytest.raises(TypeError, match="can't be replaced"):
        combined.params["a"] = np.ones(2)  # type: ignore[index]
    first.add_param_group({"params": {"new": np.ones(1)}})
    assert list(combined.params) == ["a", "b", "new", "c"]
    text = repr(combined)
    assert text.startswith("Combined(Momentum(lr=0.1")
    assert text.endswith("), clip_norm=1.0, nonfinite='skip', step_count=0)")
    assert "Derived object at" in repr(Derived.__new__(Derived))


def test_averaged() -> None:
    combined = made()
    combined.step(grads(1))
    before = {name: p.copy() for name, p in combined.params.items()}
    with combined.averaged():
        assert_same_bits(combined.params["c"], combined.averages["c"])
        for name in "ab":
            assert_same_bits(combined.params[name], before[name])
        for optimizer in combined.optimizers:  # also the one without averages
            with pytest.raises(RuntimeError, match="step must come after the block"):
                optimizer.step(dict.fromkeys(optimizer.params))
        for block in (combined.averaged(), combined.optimizers[1].averaged()):
            with pytest.raises(RuntimeError, match="a block in a block"), block:
                pass
        assert_same_bits(combined.params["c"], combined.averages["c"])
        for again in (copy.copy, copy.deepcopy, pickle.dumps):
            with pytest.raises(RuntimeError, match="copy must come after"):
                again(combined)
    for name, p in combined.params.items():
        assert_same_bits(p, before[name])
    with combined.optimizers[1].averaged():
        block = combined.averaged()
        with pytest.raises(RuntimeError, match="a block in a block"):
            block.__enter__()
        assert not combined.optimizers[0]._plan.shows_averages  # shown for none of them
        assert combined.optimizers[1]._plan.shows_averages
    block = combined.averaged()
    block.__enter__()
    del block
    assert_same_bits(combined.params["c"], before["c"])
    block = combined.averaged()
    block.__enter__()
    combined.end_averaged()
    combined.step(grads(2))
    with pytest.raises(
        ValueError, match="an optimizer of the Combined must have averages, got none"
    ):
        instep.Combined(instep.SGD([np.ones(1)])).averaged()
    iterate = instep.Combined(instep.ASGD([np.ones(1)], t0=1), instep.SGD({"b": np.ones(1)}))
    with iterate.averaged():
        pass


def test_copies_are_refreshed_in_all() -> None:
    w, v = np.ones(3, "f4"), np.ones(3)
    half, single = np.zeros(3, "f2"), np.zeros(3, "f4")
    combined = instep.Combined(
        instep.SGD([w], copy_to=[half]), instep.SGD({"v": v}, copy_to={"v": single})
    )
    w[...], v[...] = 2.0, 3.0
    combined.refresh_copies()
    assert half.tolist() == [2.0] * 3
    assert single.tolist() == [3.0] * 3


def test_the_loss_scaler() -> None:
    w, v = np.zeros(2, "f4"), np.zeros(2, "f4")
    combined = instep.Combined(instep.SGD({"w": w}, lr=1.0), instep.SGD({"v": v}, lr=1.0))
    scaler = instep.LossScaler(scale=4.0)
    with pytest.raises(ValueError, match="must be 'skip'"):
        scaler.step(combined, {"w": np.ones(2), "v": np.ones(2)})
    combined.nonfinite = "skip"
    assert scaler.step(combined, {"w": np.full(2, 4.0), "v": np.full(2, 8.0)})
    assert (w[0], v[0]) == (-1.0, -2.0)
    assert not scaler.step(combined, {"w": np.full(2, np.inf), "v": np.full(2, 8.0)})
    assert scaler.scale == 2.0
    assert (w[0], v[0]) == (-1.0, -2.0)


class LeadsBack:
    """A schedule that holds the Combined of which it is a part."""

    to: Any = None

    def __call__(self, step: int) -> float:
        return 0.1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_cycles_are_copied(again: Any) -> None:
    rate = LeadsBack()
    rate.to = combined = instep.Combined(instep.SGD([np.ones(2)], lr=rate))
    twin = again(combined)
    assert twin is not combined
    assert twin.optimizers[0].lr.to is twin


def test_cycles_are_collected() -> None:
    rate = LeadsBack()
    combined = instep.Combined(instep.SGD([np.ones(2)], lr=rate), clip_norm=rate)
    rate.to = combined
    combined.step([[np.ones(2)]])
    gone = weakref.ref(combined)
    del combined, rate
    gc.collect()
    assert gone() is None
