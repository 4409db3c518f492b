"""`Distributed`: an optimizer whose step several ranks take together."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import numpy as np

from instep import __version__
from instep._support.wording import kind, shown
from instep.mpi import status, storing
from instep.mpi.choosing import communicator
from instep.mpi.job import Job
from instep.mpi.moving import gather
from instep.mpi.ranked import RankedPlan, described
from instep.mpi.routes import Routes
from instep.mpi.shards import cut, whole_on_all
from instep.optimizers import Combined, Optimizer
from instep.optimizers.containers import GRADIENTS
from instep.optimizers.plans import made_by

if TYPE_CHECKING:
    from typing_extensions import Self

    from instep.mpi.protocol import Communicator
    from instep.optimizers.containers import Accumulated, Gradients, Params

__all__ = ["Distributed"]

#: Models of fewer bytes, times the number of ranks, are stepped whole by every rank.
_SMALL = 4 << 20


class Distributed:
    """doc."""

    __slots__ = ()

    def __new__(
        cls,
        make: type[Optimizer] | Callable[..., Optimizer | Combined],
        params: Params,
        *,
        comm: Any,
        shard: bool | Literal["auto"] = "auto",
        sync: bool = False,
        timeout: float | None = 600.0,
        **keywords: Any,
    ) -> Self:
        """Make the optimizer, whose class is then a subclass of both `Distributed` and its own."""
        job = Job(communicator(comm, timeout=timeout))
        made, error = None, None
        try:
            _check_arguments(make, shard, sync)
            with made_by(job):
                made = make(params, **keywords)
            _adopt(job, made)
        except BaseException as caught:
            error = caught
        with job.moving("the constructor"):
            status.meet(job.comm, status.Kind.MAKE, 0, error)
            _agree_on_parameters(job, sync)
            _share_out(job, shard)
        made.__class__ = _class_of(type(made))
        return made

    def __init__(self, *args: Any, **keywords: Any) -> None:
        pass  # __new__ has made it

    @property
    def _job(self) -> Job:
        return self._plan.job  # type: ignore[attr-defined]

    @property
    def comm(self) -> Communicator:
        """The communicator."""
        return self._job.comm

    def step(
        self, grads: Gradients | Accumulated | None = GRADIENTS, *, grad_scale: float | None = None
    ) -> None:
        """doc."""
        self._job.step(self, grads, grad_scale)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """doc."""
        self._job.show_averages()
        try:
            yield
        finally:
            self._job.end_averaged()

    def state_dict(self) -> dict[str, Any] | None:
        """doc."""
        return storing.gathered(self._job, self)

    def load_state_dict(self, state_dict: Mapping[str, Any] | None) -> None:
        """doc."""
        storing.load(self._job, self, state_dict)

    def close(self) -> None:
        """doc."""
        self._job.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def add_param_group(self, *args: Any, **keywords: Any) -> NoReturn:
        """Refuse another group."""
        raise TypeError(
            "a Distributed must get all its groups when it is made, got another one; make a new "
            "Distributed, and load a state into it"
        )

    def __reduce__(self) -> NoReturn:
        """Refuse copies and pickles: the ranks' parts belong together."""
        raise TypeError(
            "a Distributed can't be copied or pickled, since each rank has a part of its states; save it "
            "to a checkpoint, or make another one and load its state_dict()"
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> NoReturn:
        """Refuse copies and pickles: the ranks' parts belong together."""
        self.__reduce__()

    def __repr__(self) -> str:
        job = self._job
        return f"Distributed({super().__repr__()}, rank={job.comm.rank}, size={job.comm.size})"


_CLASSES: dict[type, type] = {}


def _class_of(made: type) -> type:
    """Return the class of a Distributed that has made an optimizer of this class."""
    if made not in _CLASSES:
        members = {"__slots__": (), "__module__": made.__module__, "__doc__": made.__doc__}
        _CLASSES[made] = type(made.__name__, (Distributed, made), members)
    return _CLASSES[made]


def _check_arguments(make: Any, shard: Any, sync: Any) -> None:
    if not callable(make):
        raise TypeError(
            "make must be a class of optimizers, or a function that makes an optimizer of the "
            f"parameters, got {kind(make)}"
        )
    if not isinstance(shard, bool) and shard != "auto":
        raise ValueError(f"shard must be True, False or 'auto', got {shown(shard)}")
    if not isinstance(sync, bool):
        raise TypeError(f"sync must be True or False, got {shown(sync)}")


def _adopt(job: Job, made: Any) -> None:
    if not isinstance(made, (Optimizer, Combined)):
        raise TypeError(f"make must return an optimizer of instep, got {kind(made)}")
    members = made.optimizers if isinstance(made, Combined) else (made,)
    for member in members:
        if not isinstance(member._plan, RankedPlan) or member._plan.job is not job:
            raise ValueError("make must make a new optimizer, got one that was there before")
    job.adopt(members, made._plan if isinstance(made, Combined) else None)


def _agree_on_parameters(job: Job, sync: bool) -> None:
    """Raise on all ranks unless all have the same optimizer and parameters."""
    comm = job.comm
    told = {
        "release of instep": __version__,
        "byte order": sys.byteorder,
        "sync": sync,
        "optimizers": described(job.plans, [m._rule_name for m in job.members]),
        "parameters": [] if sync else [_checksum(flat) for flat in job.flats],
    }
    each = [json.loads(text) for text in status.gather_any(comm, json.dumps(told).encode())]
    for rank, other in enumerate(each):
        for what, value in each[0].items():
            if other[what] != value:
                raise ValueError(_difference(job, rank, what, value, other[what]))
    if sync:
        _take_from_first(job)


def _difference(job: Job, rank: int, what: str, first: Any, other: Any) -> str:
    if what == "parameters":
        k = next(i for i, (a, b) in enumerate(zip(first, other, strict=True)) if a != b)
        name = [name for plan in job.plans for name in plan.names][k]
        return (
            f"all ranks must have the same parameters, got other elements of {name!r} on rank {rank} "
            "than on rank 0; make them from the same seed, or pass sync=True to take rank 0's"
        )
    if what == "optimizers":
        return f"all ranks must have the same optimizer, got {_first_difference(json.loads(first), json.loads(other), rank)}"
    return f"all ranks must have the same {what}, got {shown(first)} on rank 0, {shown(other)} on rank {rank}"


def _first_difference(first: Any, other: Any, rank: int, path: str = "") -> str:
    """Say where two descriptions differ first."""
    if isinstance(first, dict) and isinstance(other, dict):
        for key in first:
            if first[key] != other[key]:
                return _first_difference(first[key], other[key], rank, f"{path}{key} ")
    if isinstance(first, list) and isinstance(other, list) and len(first) == len(other):
        for k, (a, b) in enumerate(zip(first, other, strict=True)):
            if a != b:
                return _first_difference(a, b, rank, f"{path}{k} ")
    return f"{path}{shown(first)} on rank 0, {shown(other)} on rank {rank}"


def _checksum(flat: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(flat.view(np.uint8).data).hexdigest()


def _take_from_first(job: Job) -> None:
    """Put rank 0's parameters in the place of the others'."""
    first = whole_on_all([_plain(flat) for flat in job.flats], 0)
    routes = Routes(job.comm, first, [flat.itemsize for flat in job.flats], True)
    gather(job.comm, routes.everything(), job.flats)


def _plain(flat: np.ndarray[Any, Any]) -> Any:
    from instep.mpi.shards import Parameter

    return Parameter(flat.size, flat.itemsize, False)


def _share_out(job: Job, shard: bool | str) -> None:
    parameters = [p for plan in job.plans for p in plan.parameters()]
    size = job.comm.size
    total = sum(flat.nbytes for flat in job.flats)
    shared = size > 1 and (total * size >= _SMALL if shard == "auto" else bool(shard))
    stretches = cut(parameters, size) if shared else whole_on_all(parameters, job.comm.rank)
    error = None
    try:
        routes = Routes(job.comm, stretches, [flat.itemsize for flat in job.flats], shared)
        own = [next((s for s in each if s.rank == job.comm.rank), None) for each in stretches]
        job.bind(routes, own, shared)
    except BaseException as caught:
        error = caught
    status.meet(job.comm, status.Kind.MAKE, 0, error)
