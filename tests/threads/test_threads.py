"""Threads: asleep when idle, steps serialised, forks survived."""

from __future__ import annotations

import os
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from interpreters import output, run
from openmp import CPUS, needs_openmp
from reference import assert_same_bits

import instep
from instep import _core

WAIT_POLICY = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


# ---- where and how ---------------------------------------------------------------------------------


def test_small_steps_stay_on_the_calling_thread() -> None:
    optimizer = instep.Adam(np.zeros(80_000, "f4"))
    before = _core.testing.counters()["parallel_regions"]
    optimizer.step(np.ones(80_000, "f4"))
    assert _core.testing.counters()["parallel_regions"] == before


@needs_openmp
def test_absent_gradients_are_no_work() -> None:
    instep.set_num_threads(2)
    params = [np.zeros(3_000_000, "f4"), np.zeros(10, "f4")]
    optimizer = instep.SGD(params)
    before = _core.testing.counters()["parallel_regions"]
    optimizer.step([None, np.ones(10, "f4")])
    assert _core.testing.counters()["parallel_regions"] == before
    optimizer.step([np.ones(3_000_000, "f4"), None])
    assert _core.testing.counters()["parallel_regions"] == before + 1
    for _ in range(5):  # nor does what earlier steps had add up
        optimizer.step([None, np.ones(10, "f4")])
    assert _core.testing.counters()["parallel_regions"] == before + 1


PROBE = """
    import instep
    from instep import _core
    spins = _core.threads_for(1 << 26) == 1
    print(instep.config()["openmp"]["idle_threads"], "| spins" if spins else "| sleeps", sep="")
"""


@needs_openmp
def test_where_nothing_tells_what_was_loaded_before() -> None:
    code = """
        import builtins
        def none_but_files(path, *arguments, **keywords):
            if path == "/proc/self/maps":
                raise OSError("no such thing here")
            return opened(path, *arguments, **keywords)
        opened, builtins.open = open, none_but_files
        import instep
        print(instep.config()["openmp"]["idle_threads"])
    """
    unless = "unless another library had loaded this OpenMP runtime before instep"
    assert output(code) == f"asleep soon after a step, {unless}"


@needs_openmp
@pytest.mark.skipif(CPUS < 2, reason="one CPU: no thread would be idle")
def test_how_idle_threads_wait() -> None:
    assert output(PROBE) == "asleep soon after a step| sleeps"
    assert output(PROBE, OMP_WAIT_POLICY="passive").endswith("(OMP_WAIT_POLICY=passive)| sleeps")
    assert output(PROBE, OMP_WAIT_POLICY="ACTIVE").endswith("(OMP_WAIT_POLICY=ACTIVE)| spins")
    assert output(PROBE, GOMP_SPINCOUNT="0").endswith("| sleeps")
    assert output(PROBE, GOMP_SPINCOUNT="100000000").endswith("| spins")


@needs_openmp
def test_the_environment_is_as_it_was_after_import() -> None:
    code = f"""
        import os
        before = dict(os.environ)
        import instep
        assert dict(os.environ) == before
        print([name for name in {WAIT_POLICY} if name in os.environ])
    """
    assert output(code) == "[]"
    assert output(code, GOMP_SPINCOUNT="7") == "['GOMP_SPINCOUNT']"


@needs_openmp
@pytest.mark.skipif(
    CPUS < 2 or not Path("/proc/self/maps").exists(), reason="needs two CPUs and /proc"
)
def test_a_runtime_that_was_loaded_before_is_taken_to_spin() -> None:
    library = instep.config()["openmp"]["library"]
    assert output(f"import ctypes; ctypes.CDLL({library!r})\n" + textwrap.dedent(PROBE)).endswith(
        "| spins"
    )


@needs_openmp
@pytest.mark.skipif(
    CPUS < 2 or not Path("/proc/self/task").exists(), reason="needs two CPUs and /proc"
)
def test_idle_threads_use_no_time() -> None:
    """Processor time of all threads while the program sleeps, after a parallel step."""
    code = """
        import time, numpy as np, instep
        instep.set_num_threads(2)
        optimizer = instep.Adam(np.zeros(2_000_000, "f4"))
        optimizer.step(np.ones(2_000_000, "f4"))
        assert instep._core.testing.counters()["parallel_regions"] == 1
        before = time.process_time()
        time.sleep(0.5)
        print(time.process_time() - before)
    """
    assert float(output(code, OMP_NUM_THREADS="2")) < 0.05


# ---- several Python threads ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [64, 2_000_000], ids=["holding the GIL", "releasing it"])
@pytest.mark.parametrize("lr", [0.01, lambda t: 0.01 / (1 + t)], ids=["constant", "scheduled"])
def test_two_threads_on_one_optimizer_take_turns(size: int, lr: Any) -> None:
    steps = 20
    g = np.random.default_rng(11).standard_normal(size).astype("f4")
    alone, shared = np.ones(size, "f4"), np.ones(size, "f4")
    first = instep.Adam(alone, lr=lr)
    for _ in range(2 * steps):
        first.step(g)
    second = instep.Adam(shared, lr=lr)
    threads = [
        threading.Thread(target=lambda: [second.step(g) for _ in range(steps)]) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert second.step_count == 2 * steps
    assert_same_bits(shared, alone)


def turns_of_another_thread(work: Callable[[], Any]) -> int:
    """How often another thread gets to run meanwhile, where nobody takes the GIL from the one at work."""
    turns: list[None] = []
    stop = threading.Event()

    def take_turns() -> None:
        while not stop.is_set():
            turns.append(None)
            time.sleep(0.0002)

    other = threading.Thread(target=take_turns)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60.0)
    try:
        other.start()
        before = len(turns)
        work()
        return len(turns) - before
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        other.join()


def test_the_gil_is_released_for_long_steps_only() -> None:
    size = 30_000_000
    optimizer, g = instep.SGD(np.zeros(size, "f4")), np.ones(size, "f4")
    assert turns_of_another_thread(lambda: [optimizer.step(g) for _ in range(5)]) >= 3
    parts = [np.zeros(500_000, "f4") for _ in range(60)]  # none of them long alone
    optimizer, gs = instep.SGD(parts), [np.ones_like(part) for part in parts]
    assert turns_of_another_thread(lambda: [optimizer.step(gs) for _ in range(5)]) >= 3
    optimizer, g = instep.SGD(np.zeros(1000, "f4")), np.ones(1000, "f4")
    assert turns_of_another_thread(lambda: [optimizer.step(g) for _ in range(5000)]) == 0


def test_a_gradient_cannot_be_resized_under_a_step() -> None:
    """While the GIL is released: NumPy refuses, because the step holds a weak reference."""
    size = 5_000_000
    g = np.ones(size)
    optimizer = instep.SGD(np.zeros(size))
    refused = threading.Event()
    done = threading.Event()

    def resize() -> None:
        while not done.is_set():
            try:
                g.resize(size + 1, refcheck=False)
                g.resize(size, refcheck=False)
            except ValueError:
                refused.set()
            time.sleep(0.0005)

    thread = threading.Thread(target=resize)
    thread.start()
    end = time.monotonic() + 30
    while not refused.is_set() and time.monotonic() < end:
        try:
            optimizer.step(g)
        except ValueError as error:  # between the two resizes, perhaps hundreds of times
            assert "shape" in str(error)  # noqa: PT017
    done.set()
    thread.join()
    assert refused.is_set()


# ---- forks -----------------------------------------------------------------------------------------

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")

FORK = """
    import os, sys, numpy as np, instep
    from instep import _core
    _core.testing.set_least_work(1)
    instep.set_num_threads(2)
    rng = np.random.default_rng(0)
    p = rng.standard_normal(200_000).astype("f4")
    grads = [rng.standard_normal(200_000).astype("f4") for _ in range(3)]
    optimizer = instep.Adam(p, clip_norm=1.0)
    optimizer.step(grads[0])
    child = os.fork()
    before = _core.testing.counters()["parallel_regions"]
    for grad in grads[1:]:
        optimizer.step(grad)
    regions = _core.testing.counters()["parallel_regions"] - before
    if child == 0:
        assert instep.get_num_threads() == 1
        print("child", regions, instep.config()["threads"]["forked"], hash(p.tobytes()), flush=True)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0
    print("parent", regions, instep.config()["threads"]["forked"], hash(p.tobytes()))
"""


@needs_fork
@needs_openmp
def test_a_forked_child_steps_serially_and_the_parent_stays_parallel() -> None:
    done = run(FORK, timeout=30, PYTHONHASHSEED="0", PYTHONWARNINGS="ignore::DeprecationWarning")
    assert done.returncode == 0, done.stderr
    child, parent = (line.split() for line in sorted(done.stdout.splitlines()))
    assert child[:3] == ["child", "0", "True"]
    assert parent[:3] == ["parent", "2", "False"]
    assert child[3] == parent[3], "the same bits"


@needs_fork
def test_fork_while_another_thread_steps() -> None:
    """The child can't know how far the step came: it is told so, at once, rather than hang."""
    code = """
        import os, threading, time, numpy as np, instep
        size = 40_000_000
        optimizer = instep.SGD(np.zeros(size, "f4"))
        other = instep.SGD(np.zeros(3), lr=1.0)
        g = np.ones(size, "f4")
        inside = threading.Event()
        def steps():
            for _ in range(20):
                inside.set()
                optimizer.step(g)
        thread = threading.Thread(target=steps)
        thread.start()
        inside.wait()
        time.sleep(0.005)
        told = 0
        for _ in range(8):
            child = os.fork()
            if child == 0:
                other.step(np.ones(3))
                assert other.params["0"][0] == -1
                try:
                    optimizer.step(g)
                except RuntimeError as error:
                    assert "got a fork while another thread stepped this optimizer" in str(error)
                    os._exit(3)
                os._exit(0)
            _, status = os.waitpid(child, 0)
            code = os.waitstatus_to_exitcode(status)
            assert code in (0, 3), code
            told += code == 3
        thread.join()
        print(told)
    """
    done = run(code, timeout=60, PYTHONWARNINGS="ignore::DeprecationWarning")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 1


def test_a_gradient_of_two_steps_at_once_is_held_until_both_are_over() -> None:
    """The first to end doesn't give the memory back that the other, which began later, still reads."""
    size = 3_000_000
    counted, given_back = 0, 0
    for _ in range(20):
        shared, other = np.ones(size, "f4"), np.ones(size, "f4")
        first = instep.SGD(np.zeros(4 * size, "f4")[::4])
        second = instep.Adam([np.zeros(4 * size, "f4")[::4] for _ in range(2)])  # takes longer
        first.step(shared)
        second.step([shared, other])
        one = threading.Thread(target=first.step, args=[shared])
        two = threading.Thread(target=second.step, args=[[shared, other]])
        one.start()
        while shared.flags.owndata and one.is_alive():
            time.sleep(0)
        two.start()
        while other.flags.owndata and two.is_alive():
            time.sleep(0)
        both = (first.step_count, second.step_count) == (1, 1)
        one.join()
        owned = shared.flags.owndata
        if both and second.step_count == 1:  # which goes on
            counted += 1
            given_back += owned
        two.join()
        assert shared.flags.owndata
        if counted == 3:
            break
    assert given_back == 0
