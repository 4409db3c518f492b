"""What the ranks do together when a Distributed is made: agree on the parameters, and share them out."""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
from typing import Any, Literal

import numpy as np

from instep import __version__
from instep._support.wording import kind, shown
from instep.mpi import status
from instep.mpi.cores import threads_of
from instep.mpi.job import Job
from instep.mpi.moving import gather
from instep.mpi.ranked import RankedPlan, described
from instep.mpi.routes import Routes
from instep.mpi.shards import Parameter, cut, whole_on_all
from instep.optimizers import Combined, Optimizer

__all__ = ["adopt", "agree", "check_arguments", "share_out"]

#: What a Distributed has in the place of the optimizer's own.
_OF_RANKS = (
    *("step", "averaged", "state_dict", "load_state_dict", "add_param_group"),
    *("save", "load", "close", "comm"),
)
#: Numbers of jobs; rank 0's are used.
_NUMBERS = itertools.count(1)
#: Models of fewer bytes, times the number of ranks, are stepped whole by every rank.
_SMALL = 4 << 20


def check_arguments(make: Any, shard: Any, sync: Any) -> None:
    """Raise TypeError or ValueError for arguments of a wrong kind."""
    if not callable(make):
        raise TypeError(
            "make must be a class of optimizers, or a function that makes an optimizer of the "
            f"parameters, got {kind(make)}; pass AdamW, for example, and its hyperparameters by name"
        )
    if not isinstance(shard, bool) and shard != "auto":
        raise ValueError(f"shard must be True, False or 'auto', got {shown(shard)}")
    if not isinstance(sync, bool):
        raise TypeError(f"sync must be True or False, got {shown(sync)}")


def adopt(job: Job, made: Any) -> None:
    """Take over the optimizers that a function has made for the job."""
    if not isinstance(made, (Optimizer, Combined)):
        raise TypeError(f"make must return an optimizer of instep, got {kind(made)}")
    members = made.optimizers if isinstance(made, Combined) else (made,)
    plans: list[Any] = [member._plan for member in members]
    if any(not isinstance(plan, RankedPlan) or plan.job is not job for plan in plans):
        raise ValueError("make must make a new optimizer, got one that was there before")
    _require_no_others(type(made))
    combined: Any = made._plan if isinstance(made, Combined) else None
    job.adopt(members, plans, combined)


def _require_no_others(cls: type) -> None:
    """Raise TypeError if a class has methods of its own that would never be called."""
    plain = Combined if issubclass(cls, Combined) else Optimizer
    for name in _OF_RANKS:
        if getattr(cls, name, None) is not getattr(plain, name, None):
            raise TypeError(
                f"make must return an optimizer with the {name} of instep, got one of its own in "
                f"{cls.__name__}, which the ranks wouldn't call; call what it adds beside {name}"
            )


def agree(job: Job, sync: bool, shard: bool | Literal["auto"]) -> None:
    """Raise ValueError on all ranks unless all have the same optimizer and parameters.

    With `sync`, the first rank's parameters are put in the place of the others' instead.
    """
    comm = job.comm
    number = next(_NUMBERS) % (1 << 16)
    told = {
        "release of instep": __version__,
        "byte order": sys.byteorder,
        "sync": sync,
        "shard": shard,
        "kind of optimizer": "one" if job.combined is None else "Combined",
        "optimizer": described(job.plans, [member._rule_name for member in job.members]),
        "parameters": [] if sync else [_checksum(flat) for flat in job.flats],
    }
    text = json.dumps([number, told]).encode()
    numbers, each = zip(*map(json.loads, status.gather_any(comm, text)), strict=True)
    for rank, other in enumerate(each):
        for what, value in each[0].items():
            if other[what] != value:
                said = _difference(job, rank, what, value, other[what])
                raise status.agreed(ValueError(said))
    job.number = numbers[0]
    if sync:
        first = whole_on_all([Parameter(flat.size, flat.itemsize, False) for flat in job.flats], 0)
        routes = Routes(comm, first, [flat.itemsize for flat in job.flats], True)
        gather(comm, routes.everything(), job.flats, routes.staging)
        job.front.refresh_copies()


def share_out(job: Job, shard: bool | Literal["auto"]) -> None:
    """Decide who owns what, and make the states of this rank's stretches."""
    threads = threads_of(job.comm)
    parameters = [p for plan in job.plans for p in plan.parameters()]
    size = job.comm.size
    total = sum(flat.nbytes for flat in job.flats)
    shared = size > 1 and (total * size >= _SMALL if shard == "auto" else shard)
    stretches = cut(parameters, size) if shared else whole_on_all(parameters, job.comm.rank)
    error = None
    try:
        routes = Routes(job.comm, stretches, [flat.itemsize for flat in job.flats], shared)
        job.bind(routes, shared)
        job.ranks.set_most_threads(threads)
    except BaseException as caught:
        error = caught
    job.meet(status.Kind.MAKE, error)


def _difference(job: Job, rank: int, what: str, first: Any, other: Any) -> str:
    if what == "parameters":
        k = next(i for i, (a, b) in enumerate(zip(first, other, strict=True)) if a != b)
        name = [name for plan in job.plans for name in plan.names][k]
        return (
            f"all ranks must have the same parameters, got other elements of {name!r} on rank {rank} "
            "than on rank 0; make them from the same seed, or pass sync=True to take rank 0's"
        )
    where, one, another = _first_difference(first, other, ())
    at = f" ({'.'.join(where)})" if where else ""
    return (
        f"all ranks must have the same {what}{at}, got {shown(one)} on rank 0, {shown(another)} on "
        f"rank {rank}"
    )


def _first_difference(
    first: Any, other: Any, path: tuple[str, ...]
) -> tuple[tuple[str, ...], Any, Any]:
    """Return where two descriptions differ first, and what they have there."""
    pairs: Any = ()
    if isinstance(first, dict) and isinstance(other, dict) and first.keys() == other.keys():
        pairs = ((key, first[key], other[key]) for key in first)
    elif isinstance(first, list) and isinstance(other, list) and len(first) == len(other):
        pairs = zip(map(str, range(len(first))), first, other, strict=True)
    for key, one, another in pairs:
        if one != another:
            return _first_difference(one, another, (*path, key))
    return path, first, other


def _checksum(flat: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()
