"""What a hyperparameter is now, set or scheduled, and several set at once."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

import instep
from instep import schedules


def made(**more: Any) -> Any:
    groups = [{"params": [np.zeros(2)]}, {"params": [np.zeros(3)]}]
    return instep.Adam(groups, **{"lr": schedules.Linear(1.0, 0.0, steps=4), **more})


def ones(optimizer: Any) -> list[list[np.ndarray]]:
    return [[np.ones(2)], [np.ones(3)]]


def test_the_numbers_of_the_next_step() -> None:
    optimizer = made(betas=(0.5, schedules.Constant(0.25)), clip_norm=schedules.Constant(2.0))
    for wanted in (1.0, 0.75, 0.5):
        assert optimizer.current("lr") == wanted
        assert optimizer.param_groups[1].at(optimizer.step_count, "lr") == wanted
        assert f"{optimizer.current('lr'):.3f}" == f"{wanted:.3f}"
        optimizer.step(ones(optimizer))
    assert optimizer.current("betas") == (0.5, 0.25)
    assert optimizer.current("clip_norm") == 2.0
    assert optimizer.current("ema_decay") is None
    assert optimizer.current("amsgrad") is False
    assert optimizer.param_groups[0].at(2)["lr"] == 0.5
    assert set(optimizer.param_groups[0].at(0)) == set(optimizer.param_groups[0]) - {"params"}


def test_numbers_that_there_are_not() -> None:
    optimizer = made()
    optimizer.param_groups[0]["lr"] = 0.5
    with pytest.raises(
        ValueError, match=r"lr must be the same in all groups .*, got .*; read param_groups\[k\]"
    ):
        optimizer.current("lr")
    with pytest.raises(
        TypeError, match=r"a hyperparameter of a group of Adam must be one of lr, .*, got 'rate'"
    ):
        optimizer.current("rate")
    optimizer.lr = lambda step: -1.0
    with pytest.raises(ValueError, match=r"the schedule of lr at step 0 must be .*, got -1\.0"):
        optimizer.current("lr")


def test_a_group_is_updated_as_a_whole() -> None:
    optimizer = made()
    group = optimizer.param_groups[0]
    before = dict(group)
    for bad in ({"lr": 0.5, "eps": -1.0}, {"lr": 0.5, "rate": 1.0}, {"lr": 0.5, "params": []}):
        with pytest.raises((TypeError, ValueError)):
            group.update(bad)
        assert dict(group) == before
    group.update({"lr": 0.5}, eps=0.25)
    assert (group["lr"], group["eps"]) == (0.5, 0.25)
    assert optimizer.param_groups[1]["eps"] == before["eps"]


def test_groups_can_be_copied() -> None:
    optimizer = made()
    groups = copy.deepcopy(optimizer.param_groups)
    assert [type(group) for group in groups] == [dict, dict]
    groups[0]["params"][0][...] = 7
    assert not optimizer.params["0"].any()


def test_what_happens_to_gradients_that_are_not_finite_can_be_changed() -> None:
    w = np.zeros(2)
    optimizer = instep.SGD(w, lr=1.0)
    bad = np.array([np.nan, 1.0])
    optimizer.nonfinite = "skip"
    optimizer.step(bad)
    assert (w.tolist(), optimizer.skipped_steps) == ([0.0, 0.0], 1)
    assert "nonfinite='skip'" in repr(optimizer)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert twin.nonfinite == "skip"
    optimizer.nonfinite = "raise"
    with pytest.raises(FloatingPointError):
        optimizer.step(bad)
    with pytest.raises(
        ValueError, match="nonfinite must be one of propagate, skip, raise, got 'no'"
    ):
        optimizer.nonfinite = "no"
    assert optimizer.nonfinite == "raise"
    optimizer.nonfinite = "propagate"
    optimizer.step(bad)
    assert np.isnan(w[0])


def test_averages_that_follow_every_third_step() -> None:
    w = np.zeros(3)
    optimizer = instep.SGD(w, lr=1.0, ema_decay=lambda step: 0.5 if step % 3 == 2 else 1.0)
    average = w.copy()
    for step in range(9):
        optimizer.step(np.full(3, -1.0))
        if step % 3 == 2:
            average += 0.5 * (w - average)
        assert_same_bits(optimizer.averages["0"], average, str(step))


def test_entries_of_a_list_go_by_numbers_too() -> None:
    optimizer = instep.Adam([np.zeros(2), np.zeros(3)])
    assert optimizer.state[1] is optimizer.state["1"]
    assert optimizer.params[0] is optimizer.params["0"]
    for missing in (2, True, "w"):
        with pytest.raises(KeyError, match="must be one of '0', '1', got "):
            optimizer.state[missing]
    assert 1 not in optimizer.state
    with pytest.raises(KeyError, match="must be one of 'True', got True"):
        _ = instep.SGD({"True": np.zeros(1)}).params[True]  # type: ignore[index]


def test_what_groups_may_not_have() -> None:
    with pytest.raises(TypeError, match="give clip_norm to the optimizer, for all groups"):
        instep.SGD([{"params": np.zeros(1), "clip_norm": 1.0}])
