"""Hyperparameters, schedules and settings that are refused: one clear error, nothing has changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from snapshots import snapshot

import instep
from instep import schedules


class NoFloat:
    """Says it is one, and isn't."""

    def __float__(self) -> Any:
        return "1.0"

    def __repr__(self) -> str:
        return "NoFloat()"


BAD_HYPERPARAMETERS: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("SGD", {"lr": -1.0}, ValueError, r"lr must be a finite number of at least 0, got -1.0"),
    ("SGD", {"lr": math.nan}, ValueError, "lr must be .*, got nan"),
    ("SGD", {"lr": math.inf}, ValueError, "lr must be .*, got inf"),
    ("SGD", {"lr": "fast"}, TypeError, "lr must be .*, got 'fast'"),
    ("SGD", {"lr": True}, TypeError, "lr must be .*, got True"),
    ("SGD", {"lr": None}, TypeError, "lr must be .*, got None"),
    ("SGD", {"lr": 1j}, TypeError, "lr must be .*, got 1j"),
    ("SGD", {"lr": NoFloat()}, TypeError, r"lr must be a finite number.*, got NoFloat\(\)"),
    ("SGD", {"lr": np.ones(2)}, TypeError, r"lr must be .*, got array\(\[1., 1.\]\)"),
    ("SGD", {"momentum": 1.5}, ValueError, r"momentum must be a number in \[0, 1\], got 1.5"),
    ("SGD", {"momentum": -0.1}, ValueError, "momentum must be .*, got -0.1"),
    ("SGD", {"momentum": 0.9, "dampening": 2}, ValueError, "dampening must be .*, got 2.0"),
    (
        "SGD",
        {"nesterov": True},
        ValueError,
        "momentum must be greater than 0 with nesterov=True, got 0",
    ),
    (
        "SGD",
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        ValueError,
        "dampening must be .*, got 0.1",
    ),
    (
        "SGD",
        {"lr_in_velocity": True},
        ValueError,
        "momentum must be greater than 0 with lr_in_velocity=True, got 0",
    ),
    ("SGD", {"lr_in_velocity": True, "momentum": 0.9, "dampening": 0.1}, ValueError, "dampening"),
    (
        "SGD",
        {"lr": schedules.CosineDecay},
        TypeError,
        r"lr must be .*, got the class CosineDecay; pass CosineDecay\(\.\.\.\)",
    ),
    ("SGD", {"momentum": float}, TypeError, "momentum must be .*, got the class float"),
    (
        "SGD",
        {"clip_norm": schedules.Constant},
        TypeError,
        "clip_norm must be .*, got the class Constant",
    ),
    (
        "SGD",
        {"ema_decay": schedules.Constant},
        TypeError,
        "ema_decay must be .*, got the class Constant",
    ),
    (
        "Adam",
        {"betas": (0.5, schedules.Linear)},
        TypeError,
        r"betas\[1\] must be .*, got the class Linear",
    ),
    ("SGD", {"lr": np.zeros((9, 9))}, TypeError, "lr must be a finite number.*, got an ndarray"),
    ("SGD", {"lr": "x" * 99}, TypeError, "lr must be a finite number.*, got a str"),
    ("SGD", {"nesterov": 1}, TypeError, "nesterov must be True or False, got 1"),
    ("SGD", {"weight_decay": -1e-3}, ValueError, "weight_decay must be .*, got -0.001"),
    ("SGD", {"l1": -1e-3}, ValueError, "l1 must be .*, got -0.001"),
    ("SGD", {"clip_value": 0.0}, ValueError, "clip_value must be a number greater than 0, got 0.0"),
    ("SGD", {"clip_norm": 0.0}, ValueError, "clip_norm must be a number greater than 0, got 0.0"),
    ("SGD", {"clip_norm": -1.0}, ValueError, "clip_norm must be .*, got -1.0"),
    ("SGD", {"clip_norm": math.nan}, ValueError, "clip_norm must be .*, got nan"),
    ("SGD", {"maximize": "yes"}, TypeError, "maximize must be .*, got 'yes'"),
    ("Momentum", {"momentum": 0.0}, ValueError, "momentum must be .*, got 0"),
    ("RMSprop", {"alpha": 1.0}, ValueError, r"alpha must be a number in \[0, 1\), got 1.0"),
    ("RMSprop", {"eps": -1e-8}, ValueError, "eps must be .*, got -1e-08"),
    ("RMSprop", {"centered": None}, TypeError, "centered must be .*, got None"),
    (
        "Adam",
        {"betas": (1.0, 0.9)},
        ValueError,
        r"betas\[0\] must be a number in \[0, 1\), got 1.0",
    ),
    ("Adam", {"betas": (0.9, -0.1)}, ValueError, r"betas\[1\] must be .*, got -0.1"),
    ("Adam", {"betas": (0.9, math.nan)}, ValueError, r"betas\[1\] must be .*, got nan"),
    ("Adam", {"betas": 0.9}, TypeError, "betas must be a pair.*, got 0.9"),
    ("Adam", {"betas": (0.9,)}, TypeError, "betas must be a pair.*, got .*"),
    ("Adam", {"eps": math.nan}, ValueError, "eps must be .*, got nan"),
    ("Adam", {"state_dtype": int}, TypeError, "state_dtype must be .*, got <class 'int'>"),
    ("Adam", {"state_dtype": bool}, TypeError, "state_dtype must be float64, .*, got bool"),
    (
        "Adam",
        {"state_dtype": ">f4"},
        TypeError,
        "state_dtype must be in the machine's byte order, got >f4",
    ),
    ("AdamW", {"weight_decay": -1.0}, ValueError, "weight_decay must be .*, got -1.0"),
]


@pytest.mark.parametrize(("rule", "options", "error", "message"), BAD_HYPERPARAMETERS, ids=str)
def test_hyperparameters(rule: str, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        getattr(instep, rule)(np.zeros(1), **options)
    assert "\n" not in str(caught.value)


def test_state_dtype_wider_than_the_arithmetic() -> None:
    with pytest.raises(
        ValueError,
        match="state_dtype must be float32, in which parameter '1' is computed, or narrower, got float64",
    ):
        instep.Adam([np.zeros(1), np.zeros(1, "f4")], state_dtype="f8")


def raises_at_two(step: int) -> float:
    if step == 2:
        raise RuntimeError("no more")
    return 0.1


BAD_SCHEDULES: list[tuple[Any, type[Exception], str]] = [
    (
        lambda t: math.nan if t == 2 else 0.1,
        ValueError,
        "the schedule of lr at step 2 must be .*, got nan",
    ),
    (lambda t: 0.2 - 0.15 * t, ValueError, "the schedule of lr at step 2 must be .*, got -0.0"),
    (
        lambda t: "x" if t == 2 else 0.1,
        TypeError,
        "the schedule of lr at step 2 must be .*, got 'x'",
    ),
    (
        lambda t: None if t == 2 else 0.1,
        TypeError,
        "the schedule of lr at step 2 must be .*, got None",
    ),
    (raises_at_two, RuntimeError, "no more"),
]


@pytest.mark.parametrize(("schedule", "error", "message"), BAD_SCHEDULES)
def test_schedules(schedule: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.Adam({"w": np.ones(5)}, lr=schedule)
    for _ in range(2):
        optimizer.step({"w": np.ones(5)})
    before = snapshot(optimizer)
    with pytest.raises(error, match=message):
        optimizer.step({"w": np.ones(5)})
    assert snapshot(optimizer) == before


def test_a_schedule_that_steps_its_own_optimizer() -> None:
    def schedule(step: int) -> float:
        if step == 1:
            optimizer.step(np.ones(1))
        return 0.1

    optimizer = instep.SGD(np.ones(1), lr=schedule)
    optimizer.step(np.ones(1))
    before = snapshot(optimizer)
    with pytest.raises(
        RuntimeError, match="in the middle of its own step, got a call on the same thread"
    ):
        optimizer.step(np.ones(1))
    assert snapshot(optimizer) == before


def test_settings_of_a_group_are_checked_when_set() -> None:
    optimizer = instep.SGD(np.zeros(1), lr=0.1)
    group = optimizer.param_groups[0]
    for name, value, error in [
        ("lr", -1.0, ValueError),
        ("lr", "x", TypeError),
        ("rate", 1.0, TypeError),
        ("params", [], TypeError),
        ("nesterov", True, ValueError),
        ("momentum", 0.9, ValueError),  # would need a buffer
    ]:
        with pytest.raises(error):
            group[name] = value
    with pytest.raises(TypeError):
        del group["lr"]
    optimizer.step(np.ones(1))
    assert optimizer.params["0"][0] == -0.1
    group["lr"] = 0.4
    optimizer.step(np.ones(1))
    assert optimizer.params["0"][0] == -0.5
    assert dict(group) == {**dict(group), "lr": 0.4, "momentum": 0.0}


def test_bfloat16_by_name_without_ml_dtypes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ml_dtypes", None)
    with pytest.raises(ImportError, match=r"pip install 'instep\[bfloat16\]'"):
        instep.Adam(np.zeros(1), state_dtype="bfloat16")
    assert instep.Adam(np.zeros(1), state_dtype=BFLOAT16).state["0"]["exp_avg"].dtype == BFLOAT16


def test_a_schedule_that_changes_settings_changes_the_next_step() -> None:
    w = np.zeros(1)

    def schedule(step: int) -> float:
        optimizer.param_groups[0]["weight_decay"] = 0.0
        optimizer.lr = 0.25
        return 1.0

    optimizer = instep.SGD(w, lr=schedule)
    optimizer.step(np.ones(1))
    assert w[0] == -1.0
    assert optimizer.lr == 0.25
    optimizer.step(np.ones(1))
    assert w[0] == -1.25


def test_a_schedule_that_loads_a_state() -> None:
    def schedule(step: int) -> float:
        optimizer.load_state_dict(saved)
        return 1.0

    optimizer = instep.SGD(np.zeros(1), lr=schedule)
    saved = optimizer.state_dict()
    before = snapshot(optimizer)
    with pytest.raises(
        RuntimeError, match="in the middle of its own step, got a call on the same thread"
    ):
        optimizer.step(np.ones(1))
    assert snapshot(optimizer) == before


def test_numbers_too_large_and_complex() -> None:
    with pytest.raises(ValueError, match=r"lr must be .*, got an int larger than any float"):
        instep.SGD(np.zeros(1), lr=10**400)
    with pytest.raises(TypeError, match=r"lr must be .*, got "):
        instep.SGD(np.zeros(1), lr=np.complex64(1))


def test_groups_can_not_be_changed_past_the_checks() -> None:
    optimizer = instep.SGD(np.zeros(1), lr=0.1)
    loose: Any = optimizer
    with pytest.raises(AttributeError):
        loose.param_groups[0].lr = 0.5
    with pytest.raises(AttributeError):
        loose.param_groups = []
    with pytest.raises(AttributeError):
        loose.param_groups.append({"params": np.zeros(1)})
