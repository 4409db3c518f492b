"""OpenMP runtimes that are told to bind their threads to cores: the program's own threads stay as they were."""

from __future__ import annotations

import os

import pytest
from interpreters import output
from openmp import CPUS, needs_openmp

import instep

LIBRARY = instep.config()["openmp"]["library"]

pytestmark = [
    needs_openmp,
    pytest.mark.skipif(
        not hasattr(os, "sched_setaffinity") or CPUS < 2,
        reason="needs CPU affinity and two CPUs",
    ),
]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
FIRST, LAST = CORES[:1], CORES[-1:]

# What launchers of clusters set; for how many threads.
BINDING = [
    pytest.param({"OMP_PROC_BIND": "true"}, CPUS, id="bind"),
    pytest.param({"OMP_PROC_BIND": "spread"}, CPUS, id="spread"),
    pytest.param({"OMP_PROC_BIND": "master"}, CPUS, id="with the caller"),
    pytest.param({"OMP_PLACES": "cores"}, CPUS, id="cores"),
    pytest.param({"OMP_PLACES": "cores", "OMP_PROC_BIND": "close"}, CPUS, id="close cores"),
    pytest.param(
        {"OMP_PLACES": ",".join(f"{{{core}}}" for core in CORES)}, CPUS, id="places by number"
    ),
    pytest.param({"OMP_PLACES": f"{{{','.join(map(str, LAST))}}}"}, 1, id="one place"),
    pytest.param(
        {"GOMP_CPU_AFFINITY": " ".join(map(str, CORES))},
        CPUS,
        id="GNU's",
        marks=pytest.mark.skipif("gomp" not in LIBRARY, reason="LLVM's runtime has another"),
    ),
]

# Affinities are those of the calling thread. A long step needs no other thread to have been worth it.
STEPS = """
    import os
    import threading
    import numpy as np
    before = os.sched_getaffinity(0)
    import instep
    assert os.sched_getaffinity(0) == before, "after import"
    instep._core.testing.set_least_work(1)

    def threads():
        return len(os.listdir("/proc/self/task"))

    def steps():
        '''The number of threads that are said, and that there are more of after steps.'''
        already = threads()
        p = np.zeros(3_000_000, "f4")
        optimizer = instep.Adam(p, clip_norm=1.0)
        says = instep.get_num_threads()
        for _ in range(3):
            optimizer.step(np.ones_like(p))
            assert os.sched_getaffinity(0) == before, "after a step"
        assert instep.get_num_threads() == says
        return says, threads() - already + 1
"""


@pytest.mark.parametrize(("variables", "granted"), BINDING)
def test_the_programs_threads_keep_their_cores(variables: dict[str, str], granted: int) -> None:
    """The one that imports, and another that steps; and all the cores are counted."""
    code = (
        STEPS
        + """
    here = steps()
    other = []
    thread = threading.Thread(target=lambda: other.append(steps()))
    thread.start()
    thread.join()
    print(*here, *other[0], instep.config()["threads"]["available"])
    """
    )
    says, got, says_elsewhere, _, available = map(int, output(code, **variables).split())
    assert (says, got, says_elsewhere, available) == (granted, granted, granted, CPUS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.parametrize("variables", [{"OMP_PROC_BIND": "true"}, {"OMP_PLACES": "cores"}], ids=str)
def test_a_forked_child_keeps_its_cores(variables: dict[str, str]) -> None:
    code = (
        STEPS
        + """
    steps()
    child = os.fork()
    if child == 0:
        assert steps() == (1, 1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    steps()
    print("kept")
    """
    )
    warnings = {"PYTHONWARNINGS": "ignore::DeprecationWarning"}
    assert output(code, **variables, **warnings) == "kept"


@pytest.mark.parametrize("bind", [{}, {"OMP_PROC_BIND": "true"}, {"OMP_PLACES": "cores"}], ids=str)
def test_a_process_bound_to_one_core_stays_there(bind: dict[str, str]) -> None:
    """As by a launcher of MPI: that affinity is the process's own."""
    bound = f"    import os; os.sched_setaffinity(0, {{{LAST[0]}}})"
    assert output(bound + STEPS + "\n    print(*steps(), *before)", **bind) == f"1 1 {LAST[0]}"


def test_an_affinity_of_later() -> None:
    """Fewer cores are counted at once, those that come back too; a number of one's own stands."""
    code = f"""
        import os
        import instep
        said = [instep.get_num_threads()]
        for cores in ({{{LAST[0]}}}, {set(CORES)}):
            os.sched_setaffinity(0, cores)
            said.append(instep.get_num_threads())
        instep.set_num_threads(2)
        os.sched_setaffinity(0, {{{LAST[0]}}})
        said.append(instep.get_num_threads())
        print(*said)
    """
    assert output(code) == f"{CPUS} 1 {CPUS} 2"


def test_where_the_system_binds_nobody() -> None:
    """A filter of system calls may refuse: what is left is what there is."""
    code = """
        import os
        def refuse(thread, cores):
            raise OSError("not here")
        os.sched_setaffinity = refuse
        import instep
        print(instep.get_num_threads())
    """
    assert int(output(code, OMP_PROC_BIND="true")) >= 1
