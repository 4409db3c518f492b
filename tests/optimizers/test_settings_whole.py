"""Hyperparameters change as a whole: no Ctrl-C, load or other thread leaves some of them the old ones."""

from __future__ import annotations

import copy
import pickle
import re
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from interrupted import interrupted_at_each_point

import instep
from instep import checkpoint, interop, schedules


def made() -> Any:
    params = [{"params": [np.zeros(1)]}, {"params": [np.zeros(1, "f4")]}]
    optimizer = instep.SGD(params, lr=1.0, momentum=schedules.Constant(0.0), clip_norm=100.0)
    optimizer.step([[np.ones(1)], [np.ones(1)]])
    return optimizer


def rates_of_a_step(optimizer: Any) -> list[float]:
    """What the next step has for learning rates, by what it does."""
    before = [float(p[0]) for p in optimizer.params.values()]
    optimizer.step([[np.ones(1)], [np.ones(1)]])
    after = [float(p[0]) for p in optimizer.params.values()]
    return [b - a for a, b in zip(after, before, strict=True)]


def set_lr(optimizer: Any) -> None:
    optimizer.lr = 0.5


def set_in_a_group(optimizer: Any) -> None:
    optimizer.param_groups[1]["lr"] = 0.5


def set_a_schedule(optimizer: Any) -> None:
    optimizer.lr = schedules.Constant(0.5)


def load(optimizer: Any) -> None:
    optimizer.load_state_dict(HALVED)


def lower_the_limit(optimizer: Any) -> None:
    optimizer.clip_norm = 2.0**0.5 / 2


HALVED = made().state_dict()
for group in HALVED["param_groups"]:
    group["lr"] = 0.5

CHANGES: dict[str, tuple[Callable[[Any], None], list[float]]] = {
    "lr": (set_lr, [0.5, 0.5]),
    "a group's": (set_in_a_group, [1.0, 0.5]),
    "a schedule": (set_a_schedule, [0.5, 0.5]),
    "load_state_dict": (load, [0.5, 0.5]),
    "clip_norm": (lower_the_limit, [0.5, 0.5]),
}


@pytest.mark.parametrize(("change", "new"), CHANGES.values(), ids=CHANGES)
def test_ctrl_c_at_any_bytecode_leaves_the_old_ones_or_the_new(change: Any, new: Any) -> None:
    """And the next step takes those that reading shows."""
    seen = set()
    box: list[Any] = []
    for interrupted in interrupted_at_each_point(lambda: change(box[0])):
        optimizer = made()
        box[:] = [optimizer]
        interrupted()
        shown = [group["lr"] for group in optimizer.param_groups]
        shown = [rate(0) if callable(rate) else rate for rate in shown]
        if change is lower_the_limit and optimizer.clip_norm != 100.0:
            shown = new
        assert shown in ([1.0, 1.0], new)
        assert rates_of_a_step(optimizer) == pytest.approx(shown, rel=1e-6)
        assert rates_of_a_step(optimizer) == pytest.approx(shown, rel=1e-6)
        seen.add(tuple(shown))
    assert len(seen) == 2


class Slow(dict[str, Any]):
    """A state in whose reading a step of another thread begins to wait."""

    def __init__(self, state: dict[str, Any], begin: Callable[[], None]) -> None:
        super().__init__(state)
        self.begin = begin

    def __getitem__(self, name: str) -> Any:
        if name == "state":
            self.begin()
        return super().__getitem__(name)


def test_a_step_that_waits_for_a_load_takes_its_hyperparameters() -> None:
    """With the arrays that were loaded, every time."""
    for _ in range(8):
        w = np.zeros(1)
        optimizer = instep.Momentum(w, lr=1.0, momentum=0.5)
        optimizer.step(np.zeros(1))
        other = instep.Momentum(np.zeros(1), lr=0.25, momentum=0.5)
        other.step(np.full(1, 8.0))
        stepping = threading.Thread(target=optimizer.step, args=(np.zeros(1),))
        started: list[Any] = []

        def begin(stepping: Any = stepping, started: Any = started) -> None:
            if not started:
                started.append(stepping.start())
                time.sleep(0.05)

        optimizer.load_state_dict(Slow(other.state_dict(), begin))
        stepping.join()
        assert started
        assert w[0] == -0.25 * (0.5 * 8.0)


def test_steps_beside_loads_never_mix_two_runs(tmp_path: Any) -> None:
    """Where one thread trains and another loads checkpoints: w says which run's arrays and rate a step had."""
    runs = []
    for k, rate in enumerate((1.0, 0.25)):
        run = instep.SGD(np.zeros(1), lr=rate)
        run.step(np.zeros(1))
        run.params["0"][...] = 1000.0 * k
        checkpoint.save(tmp_path / str(k), run)
        runs.append((1000.0 * k, rate))
    w = np.zeros(1)
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(np.zeros(1))
    done = threading.Event()

    def train() -> None:
        while not done.is_set():
            optimizer.step(np.full(1, -1.0))

    thread = threading.Thread(target=train)
    thread.start()
    try:
        for turn in range(60):
            base, rate = runs[turn % 2]
            checkpoint.load(tmp_path / str(turn % 2), optimizer)
            with optimizer._plan:
                steps = optimizer.step_count - 1
                assert w[0] == base + rate * steps
    finally:
        done.set()
        thread.join()


def test_changes_on_several_threads_are_all_made() -> None:
    """None of them overwrites another's with what it had read before."""
    optimizer = instep.SGD(np.zeros(1), ema_decay=0.5)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    names = {"lr": 0.0, "l1": 0.0, "weight_decay": 0.0, "clip_norm": 0.0, "ema_decay": 0.0}

    def count(name: str) -> None:
        for k in range(1, 400):
            setattr(optimizer, name, k / 1000)
            assert getattr(optimizer, name) == k / 1000

    failed: list[str] = []

    def guarded(name: str) -> None:
        try:
            count(name)
        except AssertionError:
            failed.append(name)

    threads = [threading.Thread(target=guarded, args=(name,)) for name in names]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not failed


READS: dict[str, Callable[[Any], Any]] = {
    "attribute": lambda o: [o.lr] * 2,
    "current": lambda o: [o.current("lr")] * 2,
    "state_dict": lambda o: [group["lr"] for group in o.state_dict()["param_groups"]],
    "combined": lambda o: [
        group["lr"] for group in instep.Combined(o).state_dict()["optimizers"][0]["param_groups"]
    ],
    "deepcopy": lambda o: [group["lr"] for group in copy.deepcopy(o).param_groups],
    "pickle": lambda o: [group["lr"] for group in pickle.loads(pickle.dumps(o)).param_groups],
    "torch": lambda o: [g["lr"] for g in interop.to_torch_state_dict(o)["param_groups"]],
    "repr": lambda o: [float(re.search(r"lr=([\d.]+),", repr(o))[1])] * 2,  # type: ignore[index]
    "html": lambda o: [float(n) for n in re.findall(r"<td>([\d.]+)</td>", html_row(o, "lr"))],
}


def html_row(optimizer: Any, name: str) -> str:
    return next(row for row in optimizer._repr_html_().split("<tr>") if f"<th>{name}</th>" in row)


@pytest.mark.parametrize("read", READS)
def test_readers_see_never_half_of_a_change(read: str) -> None:
    """Whenever another thread sets a hyperparameter while it is read, saved or copied."""
    optimizer = instep.SGD([{"params": [np.zeros(1)]} for _ in range(2)], lr=1.0)
    rate, found = [1.0], []

    def change() -> None:
        rate[0] += 1.0
        optimizer.lr = rate[0]

    def look() -> None:
        found.append(READS[read](optimizer))

    for call in interrupted_at_each_point(look, change):
        call()
        rates = found.pop()
        assert rates in ([rate[0]] * 2, [rate[0] - 1.0] * 2)
    assert rate[0] > 10.0


@pytest.mark.parametrize("how", ["in all", "in a group", "with others"])
def test_a_number_that_sets_others_as_it_is_asked(how: str) -> None:
    """It is asked once, whatever has changed then, and all groups get the same."""
    optimizer = made()
    asked: list[int] = []

    class Setting:
        def __float__(self) -> float:
            asked.append(1)
            assert len(asked) < 10, "it never ends"
            optimizer.l1 = 0.125 * len(asked)
            return 0.5 * len(asked)

    if how == "in a group":
        optimizer.param_groups[1]["lr"] = Setting()
    elif how == "with others":
        optimizer.param_groups[1].update(lr=Setting(), weight_decay=0.25)
    else:
        optimizer.lr = Setting()
    first = 0.5 if how == "in all" else 1.0
    assert [group["lr"] for group in optimizer.param_groups] == [first, 0.5]
    assert optimizer.l1 == 0.125


def test_ctrl_c_at_any_bytecode_as_steps_has_groups_made() -> None:
    """The numbers that a step wants are those of the rule that the group has."""
    sgd = {"lr": 1.0, "momentum": 0.0, "dampening": 0.0}
    adam = {"lr": 1.0, "beta1": 0.5, "beta2": 0.5, "eps": 1.0}
    steps: Any = None

    def make() -> None:
        steps.add_group("adam")
        steps.set_group(0, "sgd")

    def takes(call: Callable[..., Any], *arguments: Any) -> bool:
        try:
            call(*arguments)
        except (ValueError, IndexError):
            return False
        return True

    seen = set()
    for call in interrupted_at_each_point(make):
        steps = instep.Steps()
        call()
        wanted = [takes(steps.step, [], numbers) for numbers in ([], [adam], [sgd])]
        assert sum(wanted) == 1
        steps.append()
        has_no_states = takes(steps.bind, 0, np.zeros(1))
        assert has_no_states == wanted[2]
        seen.add(wanted.index(True))
    assert seen == {0, 1, 2}
