"""How many threads a step may use: what is set, the variables, affinity, the cgroup's quota."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from interpreters import output, run, skip_what_llvms_openmp_does
from openmp import CPUS, HAS_OPENMP, needs_openmp

import instep
from instep.machine.threads import _cpu_quota, available_cpus


def told(count: int) -> int:
    """What is said where so many threads are asked for: without OpenMP there are none."""
    return count if HAS_OPENMP else 1


def test_set_get_and_scope() -> None:
    default = instep.get_num_threads()
    with instep.num_threads(5):
        assert instep.get_num_threads() == told(5)
        with instep.num_threads(2):
            assert instep.get_num_threads() == told(2)
        assert instep.get_num_threads() == told(5)
    assert instep.get_num_threads() == default
    with pytest.raises(RuntimeError, match="inside"), instep.num_threads(3):
        raise RuntimeError("inside")
    assert instep.get_num_threads() == default
    instep.set_num_threads(7)
    assert instep.get_num_threads() == told(7)
    instep.set_num_threads(None)
    assert instep.get_num_threads() == default


@pytest.mark.parametrize(
    ("count", "error"),
    [
        (0, ValueError),
        (-1, ValueError),
        (1025, ValueError),
        (1.5, TypeError),
        ("2", TypeError),
        (True, TypeError),
    ],
)
def test_bad_counts(count: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="must be a whole number from 1 to 1024, got "):
        instep.set_num_threads(count)


COUNT = "import instep; print(instep.get_num_threads())"
# An import that is refused can be tried again.
IMPORTS = """
    import os
    for value in {values!r}:
        os.environ["INSTEP_NUM_THREADS"] = value
        try:
            import instep
        except ValueError as error:
            print(ascii(str(error)))
        else:
            print("imported")
"""


def test_default_is_what_the_process_may_use() -> None:
    assert int(output(COUNT)) == (CPUS if HAS_OPENMP else 1)


@needs_openmp
def test_openmps_variable_is_honoured_up_to_the_cpus() -> None:
    assert int(output(COUNT, OMP_NUM_THREADS="1")) == 1
    assert int(output(COUNT, OMP_NUM_THREADS="1000000")) == CPUS


@needs_openmp
@pytest.mark.parametrize("value", ["0", "-1", "abc", ""])
def test_openmps_variable_with_nonsense_in_it_is_passed_over(value: str) -> None:
    skip_what_llvms_openmp_does(instep.config()["openmp"], value)
    assert int(output(COUNT, OMP_NUM_THREADS=value)) == CPUS


def test_own_variable() -> None:
    assert int(output(COUNT, INSTEP_NUM_THREADS="5", OMP_NUM_THREADS="1")) == told(5)
    back = "import instep; instep.set_num_threads(2); instep.set_num_threads(None)"
    assert int(output(f"{back}; {COUNT}", INSTEP_NUM_THREADS="5")) == told(5)
    assert output(COUNT, INSTEP_NUM_THREADS="") == output(COUNT)  # empty is as good as not set
    assert output(COUNT, INSTEP_NUM_THREADS=" 05 ") == output(COUNT, INSTEP_NUM_THREADS="5")
    # int would take the first two.
    values = ("1_0", "\u0663", "0", "-1", "abc", " ", "1.5", "1000000", "1\n2", "\udcff")
    lines = output(IMPORTS.format(values=values)).splitlines()
    for value, line in zip(values, lines, strict=True):
        assert line.endswith(ascii(f"must be a whole number from 1 to 1024, got {value!r}")[1:])
    done = run(COUNT, INSTEP_NUM_THREADS="abc")
    assert done.returncode != 0
    assert "INSTEP_NUM_THREADS must be a whole number from 1 to 1024, got 'abc'" in done.stderr


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
def test_affinity() -> None:
    assert int(output(f"import os; os.sched_setaffinity(0, {{0}}); {COUNT}")) == 1


@needs_openmp
def test_threadpoolctls_limit_holds() -> None:
    threadpoolctl = pytest.importorskip("threadpoolctl")
    with threadpoolctl.threadpool_limits(1):
        assert instep.get_num_threads() == 1
    assert instep.get_num_threads() == CPUS


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("files", "quota"),
    [
        ({}, float("inf")),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, float("inf")),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "150000 100000\n"}, 1.5),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000\n",
                "sys/fs/cgroup/a/b/cpu.max": "400000 100000\n",
            },
            1.0,
        ),
        (
            {
                "proc/self/cgroup": "3:cpuset:/\n2:cpu,cpuacct:/job\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000\n",
            },
            0.5,
        ),
        (
            {
                "proc/self/cgroup": "2:cpu:/\n0::/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            float("inf"),
        ),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "nonsense\n"}, float("inf")),
    ],
)
def test_cgroup_quota(files: dict[str, str], quota: float, tmp_path: Path) -> None:
    for name, text in files.items():
        write(tmp_path / name, text)
    assert _cpu_quota(str(tmp_path)) == quota
    assert available_cpus(str(tmp_path)) == max(1, min(CPUS, 1 if quota < 2 else CPUS))
