"""Ctrl-C and other signals, at any moment: what they interrupt is done or not done, never half: docs/faults.md."""

from __future__ import annotations

import signal
from typing import Any

import numpy as np
import pytest
from interpreters import UNMEASURED, output

import instep
from instep.optimizers.current import GroupValues

needs_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="no interval timers on this system"
)

# Raises KeyboardInterrupt, as a Ctrl-C does, after so many seconds.
TIMER = """
    import os, signal, threading, time
    import numpy as np
    import instep

    signal.signal(signal.SIGALRM, signal.default_int_handler)

    def interrupted(seconds, action):
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            while True:
                action()
        except KeyboardInterrupt:
            pass
"""


@needs_timers
def test_ctrl_c_during_steps() -> None:
    """KeyboardInterrupt comes when the step is over: what step_count says is what has been done."""
    code = (
        TIMER
        + """
    size = 4_000_000
    w, g = np.zeros(size, "f4"), np.ones(size, "f4")
    optimizer = instep.SGD(w, lr=1.0)
    def check():
        assert (w == -float(optimizer.step_count)).all(), (w[0], optimizer.step_count)
    for k in range(12):
        interrupted(0.002 + 0.0011 * k, lambda: optimizer.step(g))
        check()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        while True:
            optimizer.step(g)
    except KeyboardInterrupt:
        pass
    check()
    optimizer.step(g)
    check()
    added = 0
    def add():
        global added
        optimizer.accumulate(g)
        added += 1
    interrupted(0.01, add)
    assert optimizer.accumulated["0"][0] in (added, added + 1)
    assert (optimizer.accumulated["0"] == optimizer.accumulated["0"][0]).all()
    """
    )
    output(code, **UNMEASURED)


@needs_timers
def test_ctrl_c_while_averages_are_put_in_place() -> None:
    """The weights are back whenever it comes, and the optimizer goes on."""
    code = (
        TIMER
        + """
    params = {name: np.zeros(1_000_000, "f4") for name in "abcdef"}
    grads = {name: np.full(1_000_000, k, "f4") for k, name in enumerate(params)}
    optimizer = instep.SGD(params, lr=1.0, ema_decay=0.5)
    optimizer.step(grads)
    before = {name: p.copy() for name, p in params.items()}
    def evaluate():
        with optimizer.averaged():
            pass
    for k in range(40):
        interrupted(0.0005 + 0.0004 * k, evaluate)
        for name, p in params.items():
            assert (p == before[name]).all(), (k, name)
        assert not optimizer._plan.shows_averages
    optimizer.step(grads)
    """
    )
    output(code, **UNMEASURED)


@needs_timers
def test_ctrl_c_while_a_state_is_loaded() -> None:
    """It is there wholly or not at all."""
    code = (
        TIMER
        + """
    params = {name: np.zeros(1_000_000, "f4") for name in "abcdef"}
    optimizer = instep.Adam(params)
    old = optimizer.state_dict()
    new = optimizer.state_dict()
    for states in new["state"].values():
        for array in states.values():
            array[...] = 1
    new["step_count"], new["steps"] = 1, dict.fromkeys(params, 1)
    turn = [0]
    def load():
        turn[0] += 1
        optimizer.load_state_dict(new if turn[0] % 2 else old)
    for k in range(30):
        interrupted(0.0005 + 0.0004 * k, load)
        values = {float(a[i]) for s in optimizer.state.values() for a in s.values() for i in (0, -1)}
        assert values == {float(optimizer.step_count)}, values
        assert set(optimizer._plan.steps) == {optimizer.step_count}
    """
    )
    output(code, **UNMEASURED)


@needs_timers
def test_ctrl_c_while_waiting_for_a_step_on_another_thread() -> None:
    """The lock is not left behind, taken by nobody: the other thread goes on."""
    code = (
        TIMER
        + """
    size = 10_000_000
    w, g = np.zeros(size, "f4"), np.ones(size, "f4")
    optimizer = instep.SGD(w, lr=1.0)
    stop = threading.Event()
    def steps():
        while not stop.is_set():
            optimizer.step(g)
    thread = threading.Thread(target=steps)
    thread.start()
    for k in range(8):
        interrupted(0.003 + 0.001 * k, optimizer.state_dict)
    count = optimizer.step_count
    for _ in range(500):
        if optimizer.step_count > count + 2:
            break
        time.sleep(0.02)
    else:
        print("hangs", flush=True)
        os._exit(1)
    stop.set()
    thread.join()
    assert (w == -float(optimizer.step_count)).all()
    """
    )
    output(code, **UNMEASURED)


def test_what_was_set_before_an_interrupted_step_holds_for_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Hyperparameters reach the core in the next step; one that is interrupted doesn't lose them."""

    def ctrl_c(self: Any, step: int) -> Any:
        raise KeyboardInterrupt

    w = np.zeros(1)
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(np.ones(1))
    optimizer.lr = 0.5
    with monkeypatch.context() as patch:
        patch.setattr(GroupValues, "at", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            optimizer.step(np.ones(1))
    assert (w[0], optimizer.step_count) == (-1.0, 1)
    optimizer.step(np.ones(1))
    assert (w[0], optimizer.step_count) == (-1.5, 2)


@needs_timers
def test_a_signal_handler_may_save() -> None:
    """As on a machine that is about to be taken away."""
    code = (
        TIMER
        + """
    size = 1_000_000
    w, g = np.zeros(size, "f4"), np.ones(size, "f4")
    optimizer = instep.SGD(w, lr=1.0)
    saved = []
    def save(signum, frame):
        saved.append((optimizer.state_dict()["step_count"], float(w[0]), float(w[-1])))
    signal.signal(signal.SIGALRM, save)
    while len(saved) < 20:
        if signal.getitimer(signal.ITIMER_REAL)[0] == 0:  # not in the handler: a signal that Python
            signal.setitimer(signal.ITIMER_REAL, 0.002)  # misses must not be the last
        optimizer.step(g)
    signal.setitimer(signal.ITIMER_REAL, 0)
    assert all(-count == first == last for count, first, last in saved), saved
    """
    )
    output(code, **UNMEASURED)
