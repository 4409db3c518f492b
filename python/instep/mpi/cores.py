"""How many threads a rank steps on, beside the other ranks of its host."""

from __future__ import annotations

import json
import os

from instep import _core
from instep._support.boots import host_mark
from instep.mpi.protocol import Communicator
from instep.mpi.status import gather_any

__all__ = ["threads_of"]


def threads_of(comm: Communicator) -> int:
    """Return the cores of this rank by the number of ranks that share them; 0 if the program has chosen.

    A program chooses by ``INSTEP_NUM_THREADS``, `instep.set_num_threads` or ``OMP_NUM_THREADS``.
    All ranks call this.
    """
    cores = _cores()
    mine = json.dumps([host_mark().hex(), sorted(cores)])
    told = [json.loads(each) for each in gather_any(comm, mine.encode())]
    beside: int = sum(
        host == host_mark().hex() and not cores.isdisjoint(theirs) for host, theirs in told
    )
    if _core.wanted_threads() > 0 or "OMP_NUM_THREADS" in os.environ:
        return 0
    return max(1, len(cores) // beside)


def _cores() -> set[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return set(os.sched_getaffinity(0))
    return set(range(os.cpu_count() or 1))
