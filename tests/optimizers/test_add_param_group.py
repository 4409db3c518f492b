"""Parameters that are added later: as if they had been there all along, without a gradient."""

from __future__ import annotations

import copy
import pickle
import threading
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, FEW, Variant, fitting, rng_for
from interrupted import interrupted_at_each_point
from snapshots import bits, snapshot

import instep
from instep import checkpoint, schedules

# A few variants in float32, every fourth of these in all dtypes: what is added doesn't depend on both.
CASES = [(v, d) for k, v in enumerate(FEW) for d in (DTYPES if k % 4 == 0 else DTYPES[1:2])]
SHAPES = {"w": (5, 3), "b": (3,)}
MORE: dict[str, dict[str, Any]] = {
    "plain": {},
    "all": {"ema_decay": 0.9, "clip_norm": 0.5, "nonfinite": "skip", "state_dtype": BFLOAT16},
}


def arrays(dtype: Any, seed: str) -> dict[str, np.ndarray]:
    rng = rng_for("added", seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def halves() -> dict[str, np.ndarray]:
    return {name: np.empty(shape, "f2") for name, shape in SHAPES.items()}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
@pytest.mark.parametrize(("variant", "dtype"), CASES, ids=str)
def test_the_same_bits_as_with_none_until_then(variant: Variant, dtype: Any, more: Any) -> None:
    lr = schedules.CosineDecay(0.05, steps=9)
    second = {"eps": 0.01} if variant.rule is instep.Prodigy else {"lr": 0.01}
    more = fitting(variant, more, dtype)
    copied = [halves(), halves()] if more and np.dtype(dtype).itemsize > 2 else [None, None]
    late = variant.make(arrays(dtype, "first"), lr=lr, copy_to=copied[0], **more)
    early = variant.make(
        [{"params": arrays(dtype, "first")}, {"params": arrays(dtype, "second"), **second}],
        lr=lr,
        copy_to=[copied[0] and halves(), copied[1]],
        **more,
    )
    for step in range(3):
        grads = arrays(dtype, f"gradient {step}")
        late.step(grads)
        early.step([grads, None])
    added = halves() if copied[1] else None
    late.add_param_group({"params": arrays(dtype, "second"), **second}, copy_to=added)
    assert late.step_count == 3
    assert bits(late) == bits(early)
    for step in range(3):
        both = [arrays(dtype, f"gradient {step}, group {k}") for k in (0, 1)]
        late.accumulate([both[1], None])
        early.accumulate([both[1], None])
        late.step(both)
        early.step(both)
        assert snapshot(late) == snapshot(early)
    if added is not None:
        assert all(np.array_equal(added[n], copied[1][n]) for n in SHAPES)
    assert late.state_dict()["steps"] == {"w": 6, "b": 6, "1.w": 3, "1.b": 3}


def test_containers_and_hyperparameters() -> None:
    w, b, c = np.zeros(2), np.zeros(1), np.zeros(())
    opt = instep.SGD(w, lr=0.5, momentum=0.25, l1=0.125)
    opt.lr = 0.75
    shown = opt.params, opt.state
    opt.add_param_group({"params": [b, (c,)], "momentum": 0.0})
    assert [len(view) for view in shown] == [1, 1]  # as they were when they were read
    assert list(opt.params) == ["0", "1", "2.0"]
    assert opt.params["1"] is b
    assert [list(opt.state[name]) for name in opt.params] == [["momentum_buffer"], [], []]
    first, second = opt.param_groups
    assert (first["lr"], second["lr"]) == (0.75, 0.75)  # set for all groups, also for later ones
    assert (first["momentum"], second["momentum"]) == (0.25, 0.0)
    assert second["l1"] == 0.125
    second["lr"] = 2.0
    second["l1"] = 0.0
    opt.step([None, [np.ones(1), (3,)]])
    assert (b.tolist(), c.tolist(), w.tolist()) == ([-2.0], -6.0, [0.0, 0.0])
    opt.add_param_group({"params": {"0": np.zeros(1)}})
    assert list(opt.params) == ["0", "1", "2.0", "2.2.0"]  # "2.0" is there already
    opt.lr = 1.0
    assert [group["lr"] for group in opt.param_groups] == [1.0, 1.0, 1.0]
    with pytest.raises(ValueError, match="3 entries, one for each parameter group, got 2"):
        opt.step([None, None])


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "no dict": (np.zeros(1), TypeError, "param_group must be a dict with 'params'.*ndarray"),
    "nothing": ({}, TypeError, "param_group must be a dict .*, got an empty dict"),
    "no params": ({"lr": 0.1}, TypeError, "param_group must be a dict with 'params'.*'lr'"),
    "empty": ({"params": []}, ValueError, "params of group 1"),
    "hyperparameter": ({"params": np.zeros(1), "lr": -1.0}, ValueError, "lr"),
    "unknown": ({"params": np.zeros(1), "rate": 1.0}, TypeError, "'rate'"),
    "for all": ({"params": np.zeros(1), "clip_norm": 1.0}, TypeError, "clip_norm"),
    "dtype": ({"params": [np.zeros(1), np.zeros(1, int)]}, TypeError, "'[0-9]' .*int64"),
    "read-only": ({"params": np.broadcast_to(1.0, 3)}, ValueError, "'1'"),
    "wide states": ({"params": np.zeros(1, "f4")}, ValueError, "state_dtype"),
    "itself": ({"params": [(x := np.zeros(3)), x[1:]]}, ValueError, "shares memory"),
}


@pytest.mark.parametrize(("group", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_nothing_is_added_if_anything_is_refused(group: Any, error: Any, message: str) -> None:
    opt = instep.Adam({"w": np.zeros(2)}, state_dtype="f8", ema_decay=0.5)
    opt.accumulate({"w": np.ones(2)})
    before = bits(opt)
    with pytest.raises(error, match=message):
        opt.add_param_group(group)
    assert bits(opt) == before
    assert len(opt.param_groups) == 1
    opt.step({"w": np.ones(2)})
    opt.add_param_group({"params": np.zeros(2)})
    opt.step([{"w": np.ones(2)}, np.ones(2)])
    assert list(opt.params) == ["w", "1"]


def test_arrays_that_are_there_already_are_refused() -> None:
    w, half = np.zeros(4), np.zeros(4, "f2")
    opt = instep.Adam({"w": w}, copy_to={"w": half})
    for taken in (w, w[2:], opt.state["w"]["exp_avg"]):
        with pytest.raises(ValueError, match=r"'1' must have .* shares memory with .*'w'"):
            opt.add_param_group({"params": taken})
    with pytest.raises(
        ValueError,
        match=r"the copy of '1' must have memory of its own, got .* shares memory with the copy of 'w'",
    ):
        opt.add_param_group({"params": np.zeros(4)}, copy_to=half)
    opt.step({"w": np.ones(4)})
    assert list(opt.params) == ["w"]


def test_not_in_a_block_of_averages() -> None:
    opt = instep.SGD(np.zeros(1), lr=1.0, ema_decay=0.5)
    with opt.averaged(), pytest.raises(RuntimeError, match="averaged"):
        opt.add_param_group({"params": np.zeros(1)})
    opt.step(np.ones(1))
    opt.add_param_group({"params": (w := np.full(1, 3.0))})
    assert opt.averages["1"].tolist() == [3.0]
    opt.step([None, np.ones(1)])
    with opt.averaged():
        assert w.tolist() == [2.5]
    assert w.tolist() == [2.0]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
def test_copies_and_states(again: Any, tmp_path: Any) -> None:
    opt = instep.Adam([np.zeros(2)], lr=0.5)
    opt.add_param_group({"params": {"b": np.zeros(1)}, "lr": 0.25})
    grads = [[np.ones(2)], {"b": np.ones(1)}]
    opt.step(grads)
    twin = again(opt)
    for each in (opt, twin):
        each.step(grads)
        each.add_param_group({"params": {"c": np.zeros(1)}})
    assert twin.param_groups[2]["lr"] == 0.5
    assert bits(twin) == bits(opt)
    other = instep.Adam([np.zeros(2)])
    with pytest.raises(ValueError, match=r"param_groups.* 1"):
        other.load_state_dict(opt.state_dict())
    for name in ("b", "c"):
        other.add_param_group({"params": {name: np.zeros(1)}})
    checkpoint.save(tmp_path / "run", opt)
    checkpoint.load(tmp_path / "run", other)
    assert bits(other) == bits(opt)


def test_a_key_that_came_later_is_told_how_to_be_trained() -> None:
    params = {"w": np.zeros(1)}
    opt = instep.SGD(params)
    params["b"] = np.zeros(1)
    with pytest.raises(ValueError, match=r"unknown: 'b'.*add_param_group"):
        opt.step({name: np.ones(1) for name in params})


def test_ctrl_c_at_any_bytecode_adds_all_or_nothing() -> None:
    box: list[Any] = []
    seen = set()
    for interrupted in interrupted_at_each_point(
        lambda: box[0].add_param_group({"params": {"b": np.zeros(1)}, "lr": 2.0})
    ):
        opt = instep.SGD({"w": np.zeros(1)}, lr=1.0)
        box[:] = [opt]
        interrupted()
        groups = len(opt.param_groups)
        seen.add(groups)
        grads = [{name: np.ones(1)} for name in ("w", "b")]
        opt.step(grads if groups == 2 else grads[0])
        assert [p.tolist() for p in opt.params.values()] == [[-1.0], [-2.0]][:groups]
    assert seen == {1, 2}


def test_beside_changes_on_another_thread() -> None:
    """Neither a group nor a change of a hyperparameter is lost."""
    opt = instep.SGD([{"params": np.zeros(1)}], lr=0.0)
    stop = threading.Event()
    last = [0.0]
    errors: list[BaseException] = []

    def change() -> None:
        try:
            while not stop.is_set():
                opt.param_groups[0]["lr"] = last[0] = last[0] + 1
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(200):
            opt.add_param_group({"params": np.zeros(1)})
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert len(opt.param_groups) == 201
    assert opt.param_groups[0]["lr"] == last[0] > 0
    assert {group["lr"] for group in opt.param_groups[1:]} == {0.0}
    opt.step([np.ones(1) for _ in opt.param_groups])


def test_what_the_caller_does_to_the_arguments_later_is_nothing_to_the_groups() -> None:
    lr, betas = np.array(0.5), [0.9, 0.99]
    opt = instep.Adam({"w": np.zeros(1)}, lr=lr, betas=betas)
    lr[...], betas[0] = 7.0, 0.1
    opt.add_param_group({"params": {"b": np.zeros(1)}})
    assert [(g["lr"], g["betas"]) for g in opt.param_groups] == [(0.5, (0.9, 0.99))] * 2


@pytest.mark.parametrize("for_all", [True, False])
def test_a_function_that_no_group_has_any_more_is_not_pickled(for_all: bool) -> None:
    opt = instep.SGD({"w": np.zeros(1)}, lr=lambda step: 0.5)
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pickle.dumps(opt)
    if for_all:
        opt.lr = 0.25
    else:
        opt.param_groups[0]["lr"] = 0.25
    twin = pickle.loads(pickle.dumps(opt))
    twin.add_param_group({"params": np.zeros(1)})
    assert [group["lr"] for group in twin.param_groups] == [0.25, 0.25]


def test_reading_while_a_group_is_refused() -> None:
    opt = instep.SGD({"w": np.zeros(1)}, momentum=0.5, ema_decay=0.5)

    class Reads(np.ndarray):
        @property
        def mask(self) -> Any:
            read.append((list(opt.state), list(opt.averages), list(opt.params)))
            raise AttributeError

    read: list[Any] = []
    with pytest.raises(TypeError, match="parameter 'a' must have dtype"):
        opt.add_param_group({"params": {"x": np.zeros(1).view(Reads), "a": np.zeros(1, int)}})
    with pytest.raises(ValueError, match="shares memory"):
        opt.add_param_group({"params": {"x": (x := np.zeros(2)).view(Reads), "y": x}})
    assert read
    assert all(seen == (["w"], ["w"], ["w"]) for seen in read)
    assert list(opt.state_dict()["state"]) == ["w"]


def test_threads_that_add_groups_name_them_apart() -> None:
    opt = instep.SGD({"w": np.zeros(1)})

    def add() -> None:
        for _ in range(50):
            opt.add_param_group({"params": [np.zeros(1)]})

    threads = [threading.Thread(target=add) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(opt.params) == ["w", *(str(k) for k in range(1, 151))]
    opt.step([None, *([np.ones(1)] for _ in range(150))])
