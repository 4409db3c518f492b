"""That a step costs little, in counts instead of seconds: allocations, parallel regions, Python calls."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import interpreters
import numpy as np
import pytest

import instep
from instep import _core

# Loaded before the C library: counts what the whole process asks of it.
COUNTER = """
#include <stddef.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static long count;
static void add(void) { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED); }
long allocations(void) { return __atomic_load_n(&count, __ATOMIC_RELAXED); }
void *malloc(size_t size) { add(); return __libc_malloc(size); }
void *calloc(size_t number, size_t size) { add(); return __libc_calloc(number, size); }
void *realloc(void *old, size_t size) { add(); return __libc_realloc(old, size); }
"""
# Prints, for each case, the allocations of 10 steps, and of how many more.
PROGRAM = """
import ctypes, json, sys
from itertools import repeat
import numpy as np
import instep

allocations = ctypes.CDLL(sys.argv[1]).allocations
allocations.restype = ctypes.c_long

def arrays(shapes, dtype="f4"):
    return [np.ones(shape, dtype) for shape in shapes]

def named(arrays):
    return {str(k): array for k, array in enumerate(arrays)}

def count(optimizer, grads, looks):
    step = optimizer.step
    for _ in repeat(None, looks):  # the 1st, 2nd, 4th, ..., 256th, 512th also look at the container
        step(grads)
    counts = []
    for number in (10, looks - 20):
        before = allocations()
        for _ in repeat(None, number):
            step(grads)
        counts.append(allocations() - before)
    return counts

SMALL, LONG = [(64, 32), (32,), (32, 10), (10,)], [(500, 600)] * 7
found = {}
for size, shapes, looks in (("small", SMALL, 256), ("long", LONG, 64)):
    def extras():
        return {"clip_norm": 1.0, "ema_decay": 0.9, "copy_to": arrays(shapes, "f2")}
    grads = arrays(shapes)
    cases = {
        "list": (instep.Adam(arrays(shapes)), grads),
        "dict": (instep.Adam(named(arrays(shapes))), named(grads)),
        "array": (instep.SGD(np.ones(shapes[0], "f4")), grads[0]),
        "extras": (instep.AdamW(arrays(shapes), weight_decay=0.1, **extras()), grads),
        "float64 gradients": (instep.RMSprop(arrays(shapes)), arrays(shapes, "f8")),
        "transposed gradients": (
            instep.Momentum(arrays(shapes)),
            [g.T for g in arrays(s[::-1] for s in shapes)],
        ),
        "groups": (instep.SGD([{"params": arrays(shapes)}]), [grads]),
        "absent gradients": (instep.SGD(arrays(shapes)), [None, *grads[1:]]),
    }
    found |= {f"{size}, {name}": count(*case, looks) for name, case in cases.items()}
print(json.dumps(found))
"""


def counted(folder: Path, **variables: str) -> dict[str, list[int]]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if platform.libc_ver()[0] != "glibc" or compiler is None:
        pytest.skip("counting allocations takes glibc and a C compiler")
    if "LD_PRELOAD" in os.environ:
        pytest.skip("something else stands between this process and the C library")
    source, library = folder / "counter.c", folder / "counter.so"
    source.write_text(COUNTER, encoding="ascii")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    variables |= {"LD_PRELOAD": str(library), **interpreters.UNMEASURED}
    program = interpreters.python("-c", PROGRAM, library, **variables)
    assert program.returncode == 0, program.stderr
    found: dict[str, list[int]] = json.loads(program.stdout)
    assert len(found) == 16
    return found


def test_a_step_asks_for_no_memory(tmp_path: Path) -> None:
    found = counted(tmp_path)
    assert {name: counts for name, counts in found.items() if any(counts)} == {}


def test_a_step_makes_hardly_any_python_objects(tmp_path: Path) -> None:
    """With Python's own pool of memory out of the way, each of its objects is an allocation."""
    for name, (few, many) in counted(tmp_path, PYTHONMALLOC="malloc").items():
        # The bound method that is called; for groups, the list of all gradients.
        most, more = (2 if "groups" in name else 1), 226
        if name.startswith("long"):
            most, more = most + 12, 34
        assert (many - few) // more <= most, name  # now and then one that is no step's


def calls_of(optimizer: Any, grads: Any) -> list[str]:
    """Names of the Python and C functions that a step calls."""
    names: list[str] = []

    def note(frame: Any, event: str, argument: Any) -> None:
        if event == "call":
            names.append(frame.f_code.co_name)
        elif event == "c_call" and argument is not sys.setprofile:
            names.append(f"C {argument.__name__}")

    sys.setprofile(note)
    try:
        optimizer.step(grads)
    finally:
        sys.setprofile(None)
    return names


@pytest.mark.parametrize("tensors", [1, 300])
def test_python_calls_of_a_step(tensors: int) -> None:
    """One into the core, however many parameters there are; a schedule is called once besides."""
    params = {str(k): np.ones(3) for k in range(tensors)}
    optimizer = instep.AdamW(params, lr=0.1, clip_norm=1.0, ema_decay=0.9)
    grads = {name: np.ones(3) for name in params}
    for _ in range(8):  # the 1st, 2nd, 4th, 8th, 16th, ... also look at the container
        optimizer.step(grads)
    # The call into the core is a method of a kind that Python 3.10 and early ones of 3.12 don't tell of.
    untold = [["step"]] if sys.version_info[:2] in ((3, 10), (3, 12)) else []
    assert calls_of(optimizer, grads) in [["step", "C step"], *untold]
    optimizer.lr = instep.schedules.CosineDecay(0.1, 100)
    optimizer.step(grads)
    calls = calls_of(optimizer, grads)
    assert calls.count("__call__") == 1
    assert len(calls) <= 30


@pytest.mark.parametrize("extras", [{}, {"clip_norm": 1.0, "ema_decay": 0.9}], ids=str)
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
@pytest.mark.usefixtures("eager_threads")
def test_one_parallel_region_a_step(extras: dict[str, Any], nonfinite: Any) -> None:
    if not instep.config()["openmp"]["version"]:
        pytest.skip("this build has no threads")
    instep.set_num_threads(2)
    params = [np.ones(50_000, "f4"), np.ones((200, 300)), np.ones(3)]
    optimizer = instep.AdamW(params, nonfinite=nonfinite, **extras)
    before = _core.testing.counters()["parallel_regions"]
    for _ in range(10):
        optimizer.step([np.ones_like(param) for param in params])
    assert _core.testing.counters()["parallel_regions"] - before == 10
