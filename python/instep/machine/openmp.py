"""Loads the compiled core such that idle threads of its OpenMP runtime go to sleep.

An OpenMP runtime keeps its threads spinning between parallel regions unless told otherwise. Between two steps a
training loop computes gradients, on the same cores: spinning threads then make the loop many times slower. Both common
runtimes take their wait policy from the environment once (GNU's libgomp when it is loaded, LLVM's libomp at the first
call), so it is set for just that moment. A policy of the user's own is left alone.

The wheels for Linux bring a libgomp of their own, under a name that no other package's has, so that another's is rarely
met. But a library that was loaded for everybody (PyTorch loads its libgomp so; LD_PRELOAD does) goes before those that
came along, under whichever name: what counts is the library that the core's calls arrive at, and the core tells it.

A runtime that is told to bind its threads to cores (OMP_PROC_BIND, OMP_PLACES, GOMP_CPU_AFFINITY, which launchers of
clusters set) also binds the thread that loads it, for good. That thread is the program's: it gets its affinity back.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

# Long enough that a thread need not fall asleep between the two halves of one step (norm and update), short enough that
# it is over long before the next matrix product begins; bench/threads.py measures both.
_POLICY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
if sys.platform == "win32":  # Microsoft's runtime knows neither
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
            # It fails where the system has taken CPUs away meanwhile; what is left is what there is.
            with suppress(OSError):
                os.sched_setaffinity(0, before)


def _loaded_libraries() -> set[str] | None:
    """Paths of the shared libraries in this process that may be an OpenMP; None where nothing tells them."""
    try:
        with open("/proc/self/maps", "rb") as maps:  # paths are bytes of any kind
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
        return (len(count), count) <= (len(most), most)  # int refuses very many digits
    return policy == "passive"


def load() -> str:
    """Import ``instep._core`` and return, in words, how its idle threads wait."""
    # Empty is as good as not set, as shells have it.
    chosen = {name: os.environ[name] for name in _USERS_OWN if os.environ.get(name, "").strip()}
    before = _loaded_libraries()
    with _same_affinity(), _environment({} if chosen else _POLICY):
        with _same_affinity():  # GNU's runtime may be loaded and then not be the one that is called
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
