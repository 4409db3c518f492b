"""A team's thread that wakes on the caller's core moves off it for a brief step."""

from __future__ import annotations

import os
import textwrap

import pytest
from interpreters import output

import instep

pytestmark = pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity") or instep.config()["openmp"]["version"] == 0,
    reason="needs Linux and OpenMP",
)
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

# A team of two, of which `second` is the other thread. Both stand on the caller's core as a step begins, and on the
# other a process spins as NumPy's threads do.
TEAM = textwrap.dedent("""
    import os
    import signal
    import numpy as np
    import instep
    from instep import _core

    def threads():
        return set(map(int, os.listdir("/proc/self/task")))

    def core_of(thread):
        with open(f"/proc/self/task/{thread}/stat") as stat:
            return int(stat.read().rpartition(")")[2].split()[36])

    def stand_on(thread, core, cores):
        '''The thread goes to that core, and may go on to the others.'''
        os.sched_setaffinity(thread, {core})
        os.sched_setaffinity(thread, cores)

    first, other = cores = sorted(os.sched_getaffinity(0))[:2]
    os.sched_setaffinity(0, cores)
    parent = os.getpid()
    spinning = os.fork()
    if spinning == 0:
        os.sched_setaffinity(0, {other})
        while os.getppid() == parent:
            os.sched_yield()
        os._exit(0)
    instep.set_num_threads(2)
    _core.testing.set_least_work(1)
    params, gradient = np.ones(SIZE, np.float32), np.ones(SIZE, np.float32)
    step = instep.Adam(params).step
    before = threads()
    step(gradient)
    (second,) = threads() - before

    def where_it_ends(cores_of_second):
        '''In how many of 200 steps the second thread ended on another core than the caller's.'''
        elsewhere = 0
        for _ in range(200):
            stand_on(0, first, cores)
            stand_on(second, first, cores_of_second)
            step(gradient)
            elsewhere += core_of(second) != first
            assert os.sched_getaffinity(second) == set(cores_of_second)
        os.kill(spinning, signal.SIGKILL)
        return elsewhere
""")


def elsewhere(size: int, cores_of_second: str) -> int:
    if len(CORES) < 2:
        pytest.skip("needs two cores")
    script = f"{TEAM.replace('SIZE', str(size))}\nprint(where_it_ends({cores_of_second}))"
    return int(output(script))


def test_off_the_callers_core() -> None:
    assert elsewhere(100_000, "cores") > 150


def test_a_bound_thread_stays() -> None:
    assert elsewhere(100_000, "[first]") == 0
