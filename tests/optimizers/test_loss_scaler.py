"""LossScaler: scales that grow and shrink, in steps of given and of accumulated gradients; its state and refusals."""

from __future__ import annotations

import copy
import json
import pickle
from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

import instep
from instep import checkpoint


def test_loss_scaler() -> None:
    w = np.zeros(2, "f4")
    optimizer = instep.SGD(w, lr=1.0, nonfinite="skip")
    scaler = instep.LossScaler(scale=8.0, growth_interval=2)
    good, bad = np.array([0.5, -0.25]), np.array([0.0, np.nan])
    assert scaler.step(optimizer, scaler.scale * good)
    assert not scaler.step(optimizer, bad)
    assert scaler.scale == 4.0
    assert scaler.step(optimizer, scaler.scale * good)
    assert scaler.scale == 4.0, "the interval counts from the skipped step"
    state = scaler.state_dict()
    again = instep.LossScaler()
    again.load_state_dict(json.loads(json.dumps(state)))
    for one in (scaler, again):
        assert one.step(optimizer, one.scale * good)
        assert one.scale == 8.0
    assert w.tolist() == [-2.0, 1.0]
    for _ in range(100):
        scaler.step(optimizer, bad)
    assert scaler.scale == 2.0**-24
    assert repr(instep.LossScaler()) == "LossScaler(scale=65536.0, growth_interval=2000)"


def test_loss_scaler_with_accumulated_gradients() -> None:
    twin, w = np.zeros(2, "f4"), np.zeros(2, "f4")
    optimizer, plain = instep.Adam(w, lr=0.5, nonfinite="skip"), instep.Adam(twin, lr=0.5)
    scaler = instep.LossScaler(scale=2.0**10, growth_interval=2)
    batches = [np.array([0.1, -0.3]), np.array([0.7, 0.2]), np.array([1e-5, 3.0])]
    for round_ in range(3):
        for batch in batches[:2]:
            optimizer.accumulate(scaler.scale * batch)
            plain.accumulate(batch)
        if round_ == 2:  # the last one comes with the step
            assert scaler.step(optimizer, scaler.scale * batches[2])
            plain.step(batches[2])
        else:
            assert scaler.step(optimizer)
            plain.step()
        assert optimizer.accumulated == {}
    assert scaler.scale == 2.0**11
    assert_same_bits(w, twin)
    optimizer.accumulate(batches[0])
    optimizer.accumulate(np.array([np.inf, 0.0]))
    assert not scaler.step(optimizer)
    assert (scaler.scale, optimizer.skipped_steps, optimizer.accumulated) == (2.0**10, 1, {})
    assert_same_bits(w, twin)
    state = scaler.state_dict()
    with pytest.raises(ValueError, match="must have gradients, given or accumulated, got none"):
        scaler.step(optimizer)
    assert scaler.state_dict() == state


def test_a_loss_scaler_is_copied_and_refuses_attributes_that_set_nothing() -> None:
    scaler = instep.LossScaler(8.0, growth_interval=np.int64(3))
    assert type(scaler.state_dict()["growth_interval"]) is int
    for name in ("scale", "factor", "growth_interval", "_factor"):
        with pytest.raises(AttributeError, match=name):
            setattr(scaler, name, 2.0)
    scaler.step(instep.SGD(np.zeros(1), nonfinite="skip"), np.zeros(1))
    for again in (copy.copy(scaler), copy.deepcopy(scaler), pickle.loads(pickle.dumps(scaler))):
        assert again is not scaler
        assert again.state_dict() == scaler.state_dict()


def test_a_scaler_that_is_none() -> None:
    scaler: Any = {"scale": 2.0}
    optimizer = instep.SGD(np.ones(1))
    for call in (
        lambda: checkpoint.save("nowhere", optimizer, scaler=scaler),
        lambda: checkpoint.load("nowhere", optimizer, scaler),
    ):
        with pytest.raises(TypeError, match="scaler must be a LossScaler, got a dict"):
            call()


def test_loss_scaler_refusals() -> None:
    with pytest.raises(
        ValueError, match="nonfinite of the optimizer must be 'skip', got 'propagate'"
    ):
        instep.LossScaler().step(instep.SGD(np.zeros(1)), np.zeros(1))
    for arguments in ({"scale": 0.0}, {"scale": np.inf}, {"growth_interval": 0}):
        with pytest.raises(ValueError, match=f"{next(iter(arguments))} must be .*, got "):
            instep.LossScaler(**arguments)
    scaler = instep.LossScaler()
    for state in (
        {},
        {**scaler.state_dict(), "scale": -1.0},
        {**scaler.state_dict(), "good_steps": -1},
    ):
        with pytest.raises(ValueError, match=r"keys|(scale|good_steps) must be .*, got "):
            scaler.load_state_dict(state)
    bad: Any = [1.0]
    with pytest.raises(TypeError, match="the state must be a dict, got a list"):
        scaler.load_state_dict(bad)
    assert scaler.state_dict() == instep.LossScaler().state_dict()
