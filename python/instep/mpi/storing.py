"""The state of a Distributed as one process would have it: gathered on the first rank, and shared out again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from instep._support.wording import kind
from instep.mpi import status
from instep.mpi.job import Job
from instep.mpi.moving import Part, from_first, to_first
from instep.mpi.shards import Stretch
from instep.mpi.status import Kind
from instep.optimizers import Combined, combined_state, stored_arrays, stored_state
from instep.optimizers.stored_formats import UNIT
from instep.schedules.loading import Loading
from instep.storage.codes import BLOCK, block_count

__all__ = [
    "NO_DEFAULT",
    "Entry",
    "entries",
    "gathered",
    "load",
    "members_of",
    "numbers",
    "parts_of",
    "refuse_pending",
    "require_whole",
    "share",
]

Array = np.ndarray[Any, Any]


class NoDefault(Enum):
    """Stands for what `Distributed.load` does without a file if no default is given."""

    ERROR = "an error"

    def __repr__(self) -> str:  # as signatures show it
        return f"<{self.value}>"


NO_DEFAULT: Any = NoDefault.ERROR
#: Keys of a state whose values are arrays.
_ARRAYS = ("state", "averages", "accumulated")


class Entry(NamedTuple):
    """One array of the stored state, and this rank's part of it."""

    plan: int  # the number of the optimizer
    parameter: int  # its number among all
    name: str  # of the parameter
    key: str  # of the state; empty for the average
    own: Array  # in use
    shape: tuple[int, ...]  # of the whole
    is_whole: bool  # every rank has all of it
    together: int  # elements of the parameter that have one element of it

    def stretches(self, job: Job) -> list[Stretch]:
        """Return who has which elements of it."""
        return [
            s._replace(begin=self._place(s.begin), end=self._place(s.end))
            for s in job.routes.stretches[self.parameter]
        ]

    def start(self, job: Job) -> int:
        """Return the element with which this rank's part begins."""
        return self._place(job.routes.starts[self.parameter])

    def _place(self, element: int) -> int:
        return -(
            -element // self.together
        )  # the last element of a parameter may have a part of one


def entries(job: Job) -> list[Entry]:
    """Return the states and averages of all parameters, in the same order on all ranks."""
    found: list[Entry] = []
    first = 0
    for k, plan in enumerate(job.plans):
        states, averages, scalar = plan.states, plan.averages, plan.scalar_states
        for i, (name, array) in enumerate(zip(plan.names, plan.arrays, strict=True), start=first):
            for key, own in states[name].items():
                shape, together, whole = array.shape, 1, not job.shared
                if key in scalar:
                    shape, whole = (), True
                elif key.removesuffix(UNIT) != key:
                    shape, together = (block_count(array.size),), BLOCK
                found.append(Entry(k, i, name, key, own, shape, whole, together))
            if name in averages:
                own = averages[name]
                found.append(Entry(k, i, name, "", own, array.shape, not job.shared, 1))
        first += len(plan.names)
    return found


def numbers(optimizer: Any) -> dict[str, Any]:
    """Return the state without its arrays."""
    if isinstance(optimizer, Combined):
        return combined_state.numbers(optimizer)
    return stored_state.numbers(optimizer)


def members_of(state: Mapping[str, Any]) -> list[Any]:
    """Return the states of the optimizers in a state: its own, if it is of one."""
    found: list[Any] = state.get("optimizers", [state])
    return found


def refuse_pending(job: Job, what: str) -> None:
    """Raise ValueError if this rank has micro-batches that no step has used."""
    if any(plan.accumulated for plan in job.plans):
        raise ValueError(
            f"{what} must come after a step that has used all accumulated gradients, got sums that "
            "wait for one; call step() or discard_accumulated() first"
        )


def gathered(job: Job, optimizer: Any) -> dict[str, Any] | None:
    """Return the state on the first rank, None on the others."""
    with job.turn("state_dict"):
        job.require_usable()
        state: dict[str, Any] = {}
        there: list[Entry] = []
        wholes: list[Array | None] = []
        error = None
        try:
            for plan in job.plans:
                plan.refuse_averages("state_dict")
            refuse_pending(job, "state_dict")
            state, there = numbers(optimizer), entries(job)
            if job.comm.rank == 0:
                wholes = [np.empty(each.shape, each.own.dtype) for each in there]
        except BaseException as caught:
            error = caught
        job.meet(Kind.STATE_DICT, error)
        with job.moving("state_dict"):
            parts = parts_of(job, there, wholes, [each.own for each in there])
            to_first(job.comm, parts, job.routes.bucket, job.routes.staging)
        if job.comm.rank > 0:
            return None
        members = members_of(state)
        for member, plan in zip(members, job.plans, strict=True):
            member.update(state={name: {} for name in plan.names}, averages={}, accumulated={})
        for each, whole in zip(there, wholes, strict=True):
            assert whole is not None
            if each.is_whole:
                np.copyto(whole, each.own.reshape(each.shape))
            _put(members[each.plan], each, whole)
        return state


def load(job: Job, optimizer: Any, state: Mapping[str, Any] | None) -> None:
    """Load the first rank's state on all ranks; what the others give doesn't matter."""
    with job.turn("load_state_dict"):
        job.require_usable()
        told, error = b"", None
        wholes: list[Array | None] | None = None
        sums: list[Mapping[str, Array]] = []
        there: list[Entry] = []
        try:
            for plan in job.plans:
                plan.refuse_averages("load_state_dict")
            there = entries(job)
            if job.comm.rank == 0:
                told, wholes, sums = _taken_apart(job, optimizer, state, there)
        except BaseException as caught:
            error = caught
        job.meet(Kind.LOAD_STATE_DICT, error)

        with job.moving("load_state_dict"):
            stored = json.loads(status.gather_any(job.comm, told)[0])
            arrays = [np.empty(each.own.shape, each.own.dtype) for each in there]
            parts = parts_of(job, there, wholes, arrays)
            from_first(job.comm, parts, job.routes.bucket, job.routes.staging)
        share(job, optimizer, stored, arrays, sums)


def share(
    job: Job,
    optimizer: Any,
    stored: dict[str, Any],
    arrays: Sequence[Array],
    accumulated: Sequence[Mapping[str, Array]] = (),
    weights: Sequence[Mapping[str, Array]] | None = None,
    told: Callable[[Exception], Exception] = lambda error: error,
) -> None:
    """Let every rank check its part of a state, and change all ranks or none.

    `arrays` are this rank's parts of the `entries`. `accumulated` and `weights` have for each
    optimizer whole arrays by name. `told` makes the error for a state that doesn't fit.
    """
    change = None
    error: BaseException | None = None
    try:
        members = members_of(stored)
        for member, plan in zip(members, job.plans, strict=True):
            member.update(state={name: {} for name in plan.names}, averages={}, accumulated={})
        for each, array in zip(entries(job), arrays, strict=True):
            _put(members[each.plan], each, array)
        for member, own in zip(members, accumulated, strict=False):
            member["accumulated"] = dict(own)
        if isinstance(optimizer, Combined):
            change = combined_state.checked(optimizer, stored, weights)
        else:
            change = stored_state.checked(
                optimizer, stored, None if weights is None else weights[0]
            )
    except (TypeError, ValueError) as caught:
        error = told(caught)
    except BaseException as caught:
        error = caught
    job.meet(Kind.LOAD_STATE_DICT, error)
    assert change is not None
    with job.moving("loading"):
        change(5)
    job.seat.step = job.step_count


def _put(member: dict[str, Any], each: Entry, array: Array) -> None:
    if each.key:
        member["state"][each.name][each.key] = array
    else:
        member["averages"][each.name] = array


def parts_of(
    job: Job,
    there: Sequence[Entry],
    wholes: Sequence[Array | None] | None,
    own: Sequence[Array],
) -> list[Part]:
    """Return what moves between the first rank and the others."""
    found: list[Part] = []
    for each, whole, array in zip(there, wholes or [None] * len(there), own, strict=True):
        size = int(np.prod(each.shape))
        stretches: Sequence[Stretch]
        if each.is_whole:
            stretches = [Stretch(len(found), rank, 0, size) for rank in range(job.comm.size)]
            start = 0
        else:
            stretches = [s._replace(parameter=len(found)) for s in each.stretches(job)]
            start = each.start(job)
        flat = None if whole is None else whole.reshape(-1)
        found.append(Part(stretches, array.reshape(-1), start, flat))
    return found


def _taken_apart(
    job: Job, optimizer: Any, state: Any, there: Sequence[Entry]
) -> tuple[bytes, list[Array | None], list[Mapping[str, Array]]]:
    """Check that the arrays of a state are there and whole; return its numbers as text, and the arrays."""
    several = isinstance(optimizer, Combined)
    (combined_state if several else stored_state).require_state(optimizer, state)
    members = members_of(state)
    sums: list[Mapping[str, Array]] = []
    for k, (own, member) in enumerate(zip(job.members, members, strict=True)):
        with combined_state.about(k) if several else nullcontext():
            stored_state.require_state(own, member)
            stored_state.checked_hyperparameters(own, member, Loading().note)
            require_whole(job, k, member, there)
            sums.append(member["accumulated"])
    wholes: list[Array | None] = [_whole_in(members[each.plan], each) for each in there]
    told = {key: value for key, value in state.items() if key not in _ARRAYS}
    if "optimizers" in state:
        told["optimizers"] = [_without_arrays(member) for member in members]
    text = json.dumps(told, default=_plain).encode()
    return text, wholes, sums


def _whole_in(member: Mapping[str, Any], each: Entry) -> Array:
    """Return an array of a state that has been checked."""
    found = member["state"][each.name].get(each.key) if each.key else member["averages"][each.name]
    if found is None:  # a remainder, which a state may lack
        return np.zeros(each.shape, each.own.dtype)
    return np.ascontiguousarray(found)


def require_whole(job: Job, k: int, state: Mapping[str, Any], there: Sequence[Entry]) -> None:
    """Raise TypeError or ValueError unless a state of an optimizer has the arrays of which ranks have parts."""
    states: dict[str, dict[str, Array]] = {name: {} for name in job.plans[k].names}
    averages: dict[str, Array] = {}
    for each in there:
        if each.plan == k:
            like = np.broadcast_to(np.zeros((), each.own.dtype), each.shape)
            if each.key:
                states[each.name][each.key] = like
            else:
                averages[each.name] = like
    stored_arrays.check_like(job.members[k], state, states, averages)


def _plain(value: Any) -> Any:
    """Return what JSON can have in the place of a number of NumPy."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"the state must be plain data, got {kind(value)} in it")


def _without_arrays(state: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in state.items() if key not in _ARRAYS}
