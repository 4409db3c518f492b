"""On which cores a team's threads run: off the caller's for brief steps, anywhere for long ones."""

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

# A team of two, of which the second thread is at hand. `brief` and `long` step on both.
TEAM = textwrap.dedent("""
    import os
    import numpy as np
    import instep
    from instep import _core

    def threads():
        return set(map(int, os.listdir("/proc/self/task")))

    def stepping(size):
        step, gradient = instep.Adam(np.ones(size, np.float32)).step, np.ones(size, np.float32)
        return lambda: step(gradient)

    def stand_on(core, cores):
        '''The calling thread goes to that core, and may go on to the others.'''
        os.sched_setaffinity(0, {core})
        os.sched_setaffinity(0, cores)

    first, *others = cores = sorted(os.sched_getaffinity(0))[:WANTED]
    os.sched_setaffinity(0, cores)
    instep.set_num_threads(2)
    _core.set_least_work(1)
    brief, long = stepping(100_000), stepping(2_500_000)
    before = threads()
    brief()
    (second,) = threads() - before
""")


def what_happens(cores: int, script: str) -> str:
    if len(CORES) < cores:
        pytest.skip(f"needs {cores} cores")
    return output(TEAM.replace("WANTED", str(cores)) + textwrap.dedent(script))


def test_off_the_callers_core_for_brief_steps_and_anywhere_for_long_ones() -> None:
    found = what_happens(
        2,
        """
        os.sched_setaffinity(second, {first})
        tries = 0
        while os.sched_getaffinity(second) == {first} and tries < 1000:
            stand_on(first, cores)  # the system may move it all the same
            brief()
            tries += 1
        print(os.sched_getaffinity(second) == set(others))
        long()
        print(os.sched_getaffinity(second) == set(cores))
        """,
    )
    assert found.split() == ["True", "True"]


@pytest.mark.parametrize(
    ("cores", "callers"),
    [(2, "{first}"), (3, "cores")],
    ids=["both on one core", "one on one of three"],
)
def test_a_bound_thread_stays(cores: int, callers: str) -> None:
    found = what_happens(
        cores,
        f"""
        os.sched_setaffinity(second, {{first}})
        for _ in range(100):
            stand_on(first, {callers})
            brief()
            long()
        print(os.sched_getaffinity(second) == {{first}})
        """,
    )
    assert found.split() == ["True"]
