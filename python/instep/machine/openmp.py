"""Loads the compiled core so that idle threads of its OpenMP runtime sleep.

An OpenMP runtime keeps its threads spinning between parallel regions unless it is told otherwise. Between two steps, a
training loop computes gradients on the same cores: spinning threads make the loop many times slower. Both common
runtimes read their wait policy from the environment once (GNU's libgomp when it is loaded, LLVM's libomp at the first
call), so this module sets the policy only for this moment. A policy that the user has set is left alone.

The wheels for Linux contain a libgomp of their own, under a name that no other package uses, so the core rarely uses
the libgomp of another package. But a library that was loaded with global symbols (as PyTorch loads its libgomp, or by
LD_PRELOAD) takes precedence over a package's own library, whatever their names are. So the core tells which library its
calls reach.

A runtime that is told to bind its threads to cores (by OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY, which launchers of
clusters set) also binds the thread that loads it, permanently. This thread belongs to the program, so this module
restores its affinity.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Long enough that a thread doesn't fall asleep between the two halves of one step (norm and update), and short enough
# that the spinning ends long before the next matrix product begins; bench/threads.py measures both.
_POLICY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
if sys.platform == "win32":  # Microsoft's runtime knows neither variable
    _POLICY["OMP_WAIT_POLICY"] = "PASSIVE"
_USERS_OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ[name] for name in variables if name in os.environ}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)


@contextmanager
def _same_affinity() -> Iterator[None]:
    """Keep the CPUs of the calling thread as they are."""
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None  # Linux has it
    try:
        yield
    finally:
        if before is not None and os.sched_getaffinity(0) != before:
            # This fails if the system has taken CPUs away meanwhile; then the thread keeps the CPUs that are left.
            with suppress(OSError):
                os.sched_setaffinity(0, before)


def _loaded_libraries() -> set[str] | None:
    """Paths of the process's shared libraries that may be an OpenMP runtime; None if the system doesn't list them."""
    try:
        with open("/proc/self/maps", "rb") as maps:  # a path may have any bytes
            lines = [line for line in maps if b"omp" in line]
    except OSError:
        return None
    return {os.path.realpath(os.fsdecode(line.split(maxsplit=5)[-1].strip())) for line in lines}


def _users_policy_sleeps(chosen: dict[str, str]) -> bool:
    policy = chosen.get("OMP_WAIT_POLICY", "").strip().lower()
    if "GOMP_SPINCOUNT" in chosen or "KMP_BLOCKTIME" in chosen:
        value = chosen.get("GOMP_SPINCOUNT", chosen.get("KMP_BLOCKTIME", "")).strip()
        if not (value.isascii() and value.isdecimal()):
            return False
        count, most = value.lstrip("0"), _POLICY["GOMP_SPINCOUNT"]
        return (len(count), count) <= (len(most), most)  # int refuses very long texts
    return policy == "passive"


def load() -> str:
    """Import ``instep._core`` and return, in words, how its idle threads wait."""
    # An empty value counts as not set, as in shells.
    chosen = {name: os.environ[name] for name in _USERS_OWN if os.environ.get(name, "").strip()}
    before = _loaded_libraries()
    with _same_affinity(), _environment({} if chosen else _POLICY):
        with _same_affinity():  # GNU's runtime may be loaded but not be the one that is called
            from instep import _core  # noqa: PLC0415 - the environment must be prepared first
        _core.start_openmp()
    build = _core.build()
    if not build["openmp"]:
        return "no threads: built without OpenMP"
    if chosen:
        spins = not _users_policy_sleeps(chosen)
        variables = ", ".join(f"{name}={value}" for name, value in chosen.items())
        how = f"as the environment says ({variables})"
    else:
        spins = before is not None and os.path.realpath(build["openmp_library"]) in before
        how = "asleep soon after a step"
        if spins:
            how = "spinning: another library had loaded this OpenMP runtime before instep"
        elif before is None:
            how += ", unless another library had loaded this OpenMP runtime before instep"
    _core.set_idle_threads_spin(spins)
    return how
