"""Other libraries bring OpenMP runtimes of their own: which one instep's threads belong to, and whether they sleep."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
from interpreters import output
from openmp import CPUS, needs_openmp

import instep

LIBRARY = instep.config()["openmp"]["library"]
OWN = ".libs" in LIBRARY  # a repaired wheel's, under a name that no other package's has

pytestmark = [
    needs_openmp,
    pytest.mark.skipif(
        CPUS < 2 or not Path("/proc/self/maps").exists(), reason="needs two CPUs and /proc"
    ),
]


def needs(package: str) -> pytest.MarkDecorator:
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed")


IMPORTS = [
    pytest.param("instep", id="instep alone"),
    pytest.param("torch, instep", id="torch first", marks=needs("torch")),
    pytest.param("instep, torch", id="torch after", marks=needs("torch")),
    pytest.param("sklearn.cluster, instep", id="scikit-learn first", marks=needs("sklearn")),
    pytest.param("instep, sklearn.cluster", id="scikit-learn after", marks=needs("sklearn")),
    pytest.param(
        "sklearn.cluster, torch, instep", id="both first", marks=[needs("sklearn"), needs("torch")]
    ),
    pytest.param(
        "instep, torch, sklearn.cluster", id="both after", marks=[needs("sklearn"), needs("torch")]
    ),
]

PROBE = """
    import os, sys, time, importlib
    def libraries():
        with open("/proc/self/maps") as maps:
            return {{os.path.realpath(line.split(maxsplit=5)[-1].strip()) for line in maps if ".so" in line}}
    for name in {imports!r}.split(", "):
        before = libraries() if name == "instep" else None
        importlib.import_module(name)
        if before is not None:
            had = before
    import numpy as np
    import instep
    openmp = instep.config()["openmp"]
    library = os.path.realpath(openmp["library"])
    assert library in libraries(), library
    said, true = openmp["idle_threads"].partition(":")[0], library in had
    assert said == ("spinning" if true else "asleep soon after a step"), (said, library)

    rng = np.random.default_rng(0)
    g = rng.standard_normal(3_000_000).astype("f4")
    results = []
    for threads in (1, 2):
        p = np.ones(3_000_000, "f4")
        instep.set_num_threads(threads)
        optimizer = instep.Adam(p)
        optimizer.step(g)
        results.append(p.tobytes())
    assert results[0] == results[1], "other bits"
    regions = instep._core.testing.counters()["parallel_regions"]
    assert regions == (0 if true else 1), regions
    start = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - start < 0.05, "idle threads use the processor"
    print(openmp["library"])
"""


@pytest.mark.parametrize("imports", IMPORTS)
def test_threads_sleep_or_steps_are_serial(imports: str) -> None:
    """Whoever comes first; and config() names the runtime that is really used."""
    library = output(PROBE.format(imports=imports), OMP_NUM_THREADS="2")
    if OWN and not imports.startswith(("torch", "sklearn.cluster, torch")):
        assert library == LIBRARY


def test_a_runtime_that_was_loaded_for_everybody_is_noticed() -> None:
    """It goes before the one that came along, whatever its name."""
    import_it = f"import ctypes; ctypes.CDLL({LIBRARY!r}, mode=ctypes.RTLD_GLOBAL)\n"
    code = "import instep; print(instep.config()['openmp']['idle_threads'])"
    assert output(import_it + code).startswith("spinning: another library had loaded")


@pytest.mark.skipif(not OWN, reason="not a repaired wheel: its OpenMP is the system's")
@needs("torch")
def test_a_wheels_runtime_is_not_handed_on() -> None:
    """PyTorch's threads go on waiting as PyTorch chose, also where instep was imported before it."""
    code = """
        import instep, torch
        with open("/proc/self/maps") as maps:
            print(any("torch/lib/libgomp" in line for line in maps))
    """
    assert output(code) == "True"
