"""Loads the compiled core such that idle threads of its OpenMP runtime go to sleep.

An OpenMP runtime keeps its threads spinning between parallel regions unless told otherwise. Between two steps a
training loop computes gradients, on the same cores: spinning threads then make the loop many times slower. Both common
runtimes take their wait policy from the environment once (GNU's libgomp when it is loaded, LLVM's libomp at the first
call), so it is set for just that moment. A policy of the user's own is left alone.

The wheels for Linux bring a libgomp of their own, under a name that no other package's has, so that another's is rarely
met. But a library that was loaded for everybody (PyTorch loads its libgomp so; LD_PRELOAD does) goes before those that
came along, under whichever name: what counts is the library that the core's calls arrive at, and the core tells it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# Long enough that a thread need not fall asleep between the two halves of one step (norm and update), short enough that
# it is over long before the next matrix product begins; bench/threads.py measures both.
_POLICY = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "0"}
if sys.platform == "win32":  # Microsoft's runtime knows neither
    _POLICY["OMP_WAIT_POLICY"] = "PASSIVE"
_USERS_OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")


@contextmanager
def _environment(settings: dict[str, str]) -> Iterator[None]:
    os.environ.update(settings)
    try:
        yield
    finally:
        for name in settings:
            del os.environ[name]


def _loaded_libraries() -> set[str] | None:
    """Paths of the shared libraries in this process that may be an OpenMP; None where nothing tells them."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            lines = [line for line in maps if "omp" in line]
    except OSError:
        return None
    return {os.path.realpath(line.split(maxsplit=5)[-1].strip()) for line in lines}


def _users_policy_sleeps(chosen: dict[str, str]) -> bool:
    policy = chosen.get("OMP_WAIT_POLICY", "").strip().lower()
    if "GOMP_SPINCOUNT" in chosen or "KMP_BLOCKTIME" in chosen:
        value = chosen.get("GOMP_SPINCOUNT", chosen.get("KMP_BLOCKTIME", "")).strip()
        return value.isdecimal() and int(value) <= int(_POLICY["GOMP_SPINCOUNT"])
    return policy == "passive"


def load() -> str:
    """Import ``instep._core`` and return, in words, how its idle threads wait."""
    chosen = {name: os.environ[name] for name in _USERS_OWN if name in os.environ}
    before = _loaded_libraries()
    with _environment({} if chosen else _POLICY):
        from instep import _core  # noqa: PLC0415 - the environment must be prepared first
    build = _core.build()
    if not build["openmp"]:
        return "no threads: built without OpenMP"
    if chosen:
        spins = not _users_policy_sleeps(chosen)
        settings = ", ".join(f"{name}={value}" for name, value in chosen.items())
        how = f"as the environment says ({settings})"
    else:
        spins = before is not None and os.path.realpath(build["openmp_library"]) in before
        how = "asleep soon after a step"
        if spins:
            how = "spinning: another library had loaded this OpenMP runtime before instep"
        elif before is None:
            how += ", unless another library had loaded this OpenMP runtime before instep"
    _core.set_idle_threads_spin(spins)
    return how
