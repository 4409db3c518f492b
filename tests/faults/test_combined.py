"""Combined: signals, threads and saves in the middle: all of the optimizers or none: docs/faults.md."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreters import UNMEASURED, output
from interrupted import interrupted_at_each_point

import instep
from instep import checkpoint

needs_timers = pytest.mark.skipif(
    not hasattr(signal, "setitimer"), reason="no interval timers on this system"
)

HEAD = """
    import os, random, signal, threading
    import numpy as np
    import instep

    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
    size = {size}
    a, b = np.zeros(size, "f4"), np.zeros(size, "f4")
    optimizers = [
        instep.SGD({{"a": a}}, lr=1.0, ema_decay=0.5), instep.SGD({{"b": b}}, lr=1.0, ema_decay=0.5)
    ]
    combined = instep.Combined(*optimizers, clip_norm=np.inf)
    grads = {{"a": np.full(size, -1.0, "f4"), "b": np.full(size, -2.0, "f4")}}

    def interrupted(seconds, action):
        try:
            signal.setitimer(signal.ITIMER_REAL, seconds)
            while True:
                action()
        except KeyboardInterrupt:
            pass

    def check():
        count = float(combined.step_count)
        assert (a == count).all() and (b == 2 * count).all(), (a[0], b[0], count)
        assert [o.step_count for o in optimizers] == [count] * 2
"""


@needs_timers
def test_ctrl_c_during_steps_of_a_combined() -> None:
    code = (
        HEAD.format(size=2_000_000)
        + """
    for k in range(12):
        interrupted(0.002 + 0.0011 * k, lambda: combined.step(grads))
        check()
    """
    )
    output(code, **UNMEASURED)


@needs_timers
def test_ctrl_c_leaves_no_averages_of_a_combined() -> None:
    code = (
        HEAD.format(size=3)
        + """
    combined.step(grads)
    rng = random.Random(0)
    def block():
        with combined.averaged():
            [k for k in range(3)]
    for k in range(2000):
        interrupted(rng.uniform(1e-6, 1e-4), block)
        assert not any(o._plan.shows_averages for o in optimizers)
        check()
    combined.step(grads)
    check()
    """
    )
    output(code, timeout=120, **UNMEASURED)


def test_ctrl_c_at_any_bytecode_of_a_combined() -> None:
    """Of a load and of the setting of a limit: everything old, or everything new."""

    def made() -> instep.Combined:
        optimizers = instep.SGD({"a": np.ones(2)}, lr=1.0), instep.Adam({"b": np.ones(2)}, lr=1.0)
        return instep.Combined(*optimizers, clip_norm=1.0)

    new = made()
    for optimizer in new.optimizers:
        optimizer.lr = 2.0
    new.clip_norm = 2.0
    new.step({"a": np.ones(2), "b": np.ones(2)})
    combined, states = made(), [made().state_dict(), new.state_dict()]
    turn = [0]

    def change() -> None:
        turn[0] += 1
        combined.load_state_dict(states[turn[0] % 2])

    def seen() -> Any:
        return (
            combined.step_count,
            combined.clip_norm,
            *((o.step_count, o.lr, o.state_dict()["steps"]) for o in combined.optimizers),
        )

    wanted = [(0, 1.0, (0, 1.0, {"a": 0}), (0, 1.0, {"b": 0}))]
    wanted.append((1, 2.0, (1, 2.0, {"a": 1}), (1, 2.0, {"b": 1})))
    for call in interrupted_at_each_point(change):
        call()
        assert seen() in wanted
    assert combined.state_dict() is not None


class Everywhere:
    """A schedule and a gradient that call a function."""

    call: Any = None

    def __call__(self, step: int) -> float:
        return self._called(0.5)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return self._called(np.ones(3))

    def __deepcopy__(self, memo: Any) -> Any:
        return self

    def _called(self, result: Any) -> Any:
        call, self.call = self.call, None
        if call is not None:
            call()
        return result


@pytest.mark.parametrize("where", ["first", "second", "limit", "gradient", "accumulated", "own"])
def test_saves_inside_calls_of_a_combined(where: str, tmp_path: Path) -> None:
    """They see all optimizers as they were before the call; what would change them is refused."""
    rates = {name: Everywhere() for name in ("first", "second", "limit")}
    gradient = Everywhere()
    first = instep.Momentum({"a": np.zeros(3)}, lr=rates["first"])
    second = instep.Adam({"b": np.zeros(3)}, lr=rates["second"])
    combined = instep.Combined(first, second, clip_norm=rates["limit"])
    combined.step({"a": np.ones(3), "b": np.ones(3)})
    before = combined.state_dict()
    path = tmp_path / "run.safetensors"
    found: list[Any] = []

    def interrupt() -> None:
        found.append(combined.state_dict())
        found.append(copy.deepcopy(combined).state_dict())
        found.append(
            {**combined.state_dict(), "optimizers": [o.state_dict() for o in (first, second)]}
        )
        checkpoint.save(path, combined)
        for change in (
            lambda: combined.load_state_dict(before),
            lambda: combined.step({"a": np.ones(3), "b": np.ones(3)}),
            lambda: combined.accumulate({"a": np.ones(3), "b": np.ones(3)}),
            combined.discard_accumulated,
            combined.refresh_copies,
        ):
            with pytest.raises(RuntimeError, match="in the middle of its own step"):
                change()

    rates.get(where, rates["first"] if where == "own" else gradient).call = interrupt
    if where == "own":
        first.step({"a": np.ones(3)})
    elif where == "accumulated":
        combined.accumulate({"a": np.ones(3), "b": gradient})
    else:
        combined.step({"a": np.ones(3), "b": gradient if where == "gradient" else np.ones(3)})
    assert len(found) == 3
    for state in found:
        np.testing.assert_equal(state, before)
    checkpoint.load(path, combined)
    np.testing.assert_equal(combined.state_dict(), before)


def test_two_combined_that_share_optimizers_in_other_orders() -> None:
    """On several threads, beside steps, reads and loads of each: nothing hangs, and no step is lost."""
    code = (
        "\n    import faulthandler\n    faulthandler.dump_traceback_later(100, exit=True)"
        + HEAD.format(size=300_000)
        + """
    backwards = instep.Combined(*optimizers[::-1])
    errors = []
    def run(action):
        try:
            for k in range(60):
                action(k)
        except BaseException as error:
            errors.append(error)
    actions = [
        lambda k: combined.step(grads),
        lambda k: backwards.step(grads),
        lambda k: optimizers[k % 2].step({"ab"[k % 2]: grads["ab"[k % 2]]}),
        lambda k: combined.state_dict(),
        lambda k: backwards.refresh_copies(),
    ]
    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    assert not errors, errors
    assert combined.step_count == backwards.step_count == 60
    assert [o.step_count for o in optimizers] == [150, 150]
    assert (a == 150.0).all() and (b == 300.0).all(), (a[0], b[0])
    """
    )
    output(code, timeout=120, **UNMEASURED)


def test_schedules_of_a_combined_that_step_another_one() -> None:
    """On two threads, each with the other's lock in sight: one is refused, and nothing hangs."""
    code = """
        import faulthandler, threading, numpy as np, instep
        faulthandler.dump_traceback_later(40, exit=True)
        together, inside = threading.Barrier(2, timeout=20), threading.local()
        combined, raised, taken = [], [], []
        def rate(k):
            def of(step):
                if getattr(inside, "first", False):
                    inside.first = False
                    together.wait()
                    combined[1 - k].step([[np.ones(3)], None])
                return 1.0
            return of
        for k in range(2):
            first, second = instep.SGD([np.zeros(3)], lr=rate(k)), instep.SGD([np.zeros(2)])
            combined.append(instep.Combined(first, second))
        def run(k):
            inside.first = True
            try:
                combined[k].step([[np.ones(3)], None])
                taken.append(k)
            except RuntimeError as error:
                assert "schedules must not step each other" in str(error), error
                raised.append(k)
        threads = [threading.Thread(target=run, args=(k,)) for k in range(2)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
        assert (len(raised), len(taken)) == (1, 1), (raised, taken)
    """
    output(code)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_fork_while_another_thread_steps_one_of_them() -> None:
    code = (
        HEAD.format(size=4_000_000)
        + """
    def run():
        while not done.is_set():
            optimizers[1].step({"b": grads["b"]})
    done = threading.Event()
    thread = threading.Thread(target=run)
    thread.start()
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            try:
                combined.step(grads)
            except RuntimeError as error:
                os._exit(3 if "the fork must come between steps" in str(error) else 4)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) in (0, 3)
    done.set()
    thread.join()
    combined.step(grads)
    """
    )
    output(code, timeout=120, **UNMEASURED)


# ---- a model with other arrays than its optimizers' ------------------------------------------------------


def with_model() -> tuple[instep.Combined, dict[str, Any]]:
    model = {"w": np.zeros(5)}
    return instep.Combined(instep.SGD(model, ema_decay=0.5)), model


def load(combined: instep.Combined, folder: Path) -> None:
    checkpoint.save(folder / "other", with_model()[0])
    checkpoint.load(folder / "other", combined)


LOOKS: dict[str, Callable[[instep.Combined, Path], Any]] = {
    "state_dict": lambda c, _: c.state_dict(),
    "load_state_dict": lambda c, _: c.load_state_dict(with_model()[0].state_dict()),
    "checkpoint.save": lambda c, folder: checkpoint.save(folder / "run", c),
    "checkpoint.load": load,
    "averaged": lambda c, _: c.averaged(),
    "a few steps": lambda c, _: [c.step({"w": np.ones(5)}) for _ in range(5)],
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_a_parameter_put_into_a_part_of_a_combined_is_told_of_once(
    look: Any, tmp_path: Path
) -> None:
    combined, model = with_model()
    combined.step({"w": np.ones(5)})
    model["w"] = np.zeros(5)
    with pytest.warns(RuntimeWarning, match="'w' in the container of the parameters") as caught:
        look(combined, tmp_path)
    assert [w.filename for w in caught] == [__file__]
