"""What the environment and a cgroup grant; other OpenMP runtimes: threads/test_openmp_neighbours.py: docs/faults.md."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from interpreters import output, skip_what_llvms_openmp_does
from openmp import CPUS, needs_openmp

import instep
from instep.machine.threads import available_cpus

LIBRARY = instep.config()["openmp"]["library"]

STEPS = """
    import hashlib
    import numpy as np
    import instep

    def digest(threads):
        '''Of the weights after steps on that many threads.'''
        instep.set_num_threads(threads)
        rng = np.random.default_rng(0)
        w = rng.standard_normal(800_000).astype("f4")
        optimizer = instep.Adam(w, clip_norm=1.0)
        for _ in range(3):
            optimizer.step(rng.standard_normal(800_000).astype("f4"))
        return hashlib.sha256(w.tobytes()).hexdigest()
"""

# The count is what the environment grants at most; nonsense is passed over with the runtime's own warning.
VARIABLES = [
    {"OMP_NUM_THREADS": "0"},
    {"OMP_NUM_THREADS": "-1"},
    {"OMP_NUM_THREADS": "abc"},
    {"OMP_NUM_THREADS": "1000000"},
    {"OMP_NUM_THREADS": "2,3"},
    {"OMP_THREAD_LIMIT": "1"},  # fewer threads come than were asked for
    {"OMP_DYNAMIC": "true"},
]


@needs_openmp
@pytest.mark.parametrize("variables", VARIABLES, ids=str)
def test_variables_of_the_environment(variables: dict[str, str]) -> None:
    """No crash, no flood of threads, and the same bits."""
    skip_what_llvms_openmp_does(instep.config()["openmp"], variables.get("OMP_NUM_THREADS", "1"))
    code = (
        STEPS
        + """
    granted = instep.get_num_threads()
    alone = digest(1)
    assert digest(None) == alone
    assert digest(2) == alone
    print(granted)
    """
    )
    assert 1 <= int(output(code, **variables)) <= available_cpus()


# What makes regions smaller than they ask to be, and threads for a program that sets none.
LIMITS = [
    ({"OMP_THREAD_LIMIT": "1"}, 1),
    ({"OMP_MAX_ACTIVE_LEVELS": "0"}, 1),
    (
        {"OMP_DYNAMIC": "true"},
        CPUS,
    ),  # passed over: the load of the last minutes is the program's own
    ({"OMP_NUM_THREADS": "2,3", "OMP_DYNAMIC": "true"}, min(2, CPUS)),
    ({"INSTEP_NUM_THREADS": "3"}, 3),
    ({"INSTEP_NUM_THREADS": "3", "OMP_THREAD_LIMIT": "2"}, 2),
    ({"INSTEP_NUM_THREADS": "3", "OMP_MAX_ACTIVE_LEVELS": "0"}, 1),
]


@needs_openmp
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
@pytest.mark.parametrize(("variables", "threads"), LIMITS, ids=str)
def test_the_number_says_what_a_step_gets(variables: dict[str, str], threads: int) -> None:
    code = """
        import os
        import numpy as np
        import instep
        def threads():
            return len(os.listdir("/proc/self/task"))
        instep._core.testing.set_least_work(1)
        before, says = threads(), instep.get_num_threads()
        instep.Adam(np.zeros(3_000_000, "f4")).step(np.ones(3_000_000, "f4"))
        print(says, threads() - before + 1, instep.config()["threads"]["used"])
    """
    assert output(code, **variables) == f"{threads} {threads} {threads}"


@needs_openmp
@pytest.mark.skipif("gomp" not in LIBRARY, reason="asks GNU's runtime for a region")
def test_a_step_inside_a_parallel_region() -> None:
    """Of the same runtime: each thread steps alone, and the number says so."""
    code = f"""
        import ctypes
        import numpy as np
        import instep
        instep._core.testing.set_least_work(1)
        said = []
        @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        def region(_):
            instep.Adam(np.zeros(100_000, "f4")).step(np.ones(100_000, "f4"))
            said.append(instep.get_num_threads())
        gomp = ctypes.CDLL({LIBRARY!r})
        instep.set_num_threads(2)
        gomp.omp_set_max_active_levels(3)
        gomp.GOMP_parallel(region, None, 2, 0)
        print(said, instep.get_num_threads(), instep._core.testing.counters()["parallel_regions"])
    """
    assert output(code) == "[1, 1] 2 0"


@pytest.fixture
def cgroup_of_one_cpu() -> Iterator[Path]:
    """A new cgroup with a quota of one CPU, where this system lets us make one."""
    name = f"instep-test-{os.getpid()}"
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        pytest.skip(f"no cgroups: {error}")
    own = {controllers: path for _, controllers, path in (line.split(":", 2) for line in lines)}
    version1 = next((path for names, path in own.items() if "cpu" in names.split(",")), None)
    try:
        if version1 is not None:
            folder = Path("/sys/fs/cgroup/cpu" + version1) / name
            folder.mkdir()
            (folder / "cpu.cfs_period_us").write_text("100000", encoding="utf-8")
            (folder / "cpu.cfs_quota_us").write_text("100000", encoding="utf-8")
        else:
            folder = Path("/sys/fs/cgroup" + own.get("", "/")) / name
            folder.mkdir()
            (folder / "cpu.max").write_text("100000 100000", encoding="utf-8")
    except OSError as error:
        with suppress(OSError):
            folder.rmdir()
        pytest.skip(f"no cgroup of our own to be had: {error}")
    yield folder
    folder.rmdir()


def test_a_quota_of_one_cpu(cgroup_of_one_cpu: Path) -> None:
    code = f"""
        import os
        with open({str(cgroup_of_one_cpu / "cgroup.procs")!r}, "w") as file:
            file.write(str(os.getpid()))
        import instep
        print(instep.get_num_threads(), instep.config()["threads"]["available"])
    """
    assert output(code) == "1 1"
