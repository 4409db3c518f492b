"""A checkpoint that every rank reads its own part of; or the first rank reads it, and shares it out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np

from instep._support.wording import shown
from instep.checkpoint.document import (
    arrays_by_optimizer,
    path_text,
    require_scaler,
    stored_extra,
    stored_for,
)
from instep.checkpoint.extra import is_of_extra
from instep.checkpoint.format import PIECE, CheckpointError, File, one_line, opened
from instep.checkpoint.loading import check_scaler, take_arrays
from instep.mpi import status, storing
from instep.mpi.job import Job
from instep.mpi.moving import Part, from_first
from instep.mpi.saving import name_in_file, prefix, weights_in_file
from instep.mpi.shards import Stretch
from instep.mpi.status import Kind, digest
from instep.mpi.storing import NO_DEFAULT, Entry, entries
from instep.optimizers import combined_state, stored_state

__all__ = ["load"]

Array = np.ndarray[Any, Any]
_VIA = ("auto", "root", "each")
_ABSENT, _THERE = b"a", b"t"


class Content(NamedTuple):
    """What a rank takes from a file."""

    document: Mapping[str, Any]
    states: list[Array]  # this rank's part of each of the `entries`
    weights: dict[str, Array]  # by their names in the file
    sums: dict[str, Array]  # of accumulated gradients, on the first rank
    extra: dict[str, Array]


def load(
    job: Job,
    optimizer: Any,
    path: str | os.PathLike[str],
    scaler: Any,
    default: Any,
    via: str,
) -> Any:
    """Load a checkpoint and return its extra, or raise on all ranks; return `default` if there is no file."""
    with job.turn("load"):
        job.require_usable()
        with job.moving("load"):
            text, error, there = "", None, False
            try:
                for plan in job.plans:
                    plan.refuse_averages("load")
                text = path_text(path)
                require_scaler(scaler)
                if via not in _VIA:
                    raise ValueError(f"via must be 'auto', 'root' or 'each', got {shown(via)}")
                there = job.comm.rank == 0 and _is_there(text, default)
            except BaseException as caught:
                error = caught
            _meet(
                job,
                error,
                {
                    "via": repr(via),
                    "default": "none" if default is NO_DEFAULT else "one",
                    "scaler": "none" if scaler is None else "one",
                },
            )
            if job.comm.allgather(_THERE if there else _ABSENT)[0] == _ABSENT:
                return default
            content = _content(job, optimizer, text, scaler, via)
            document = content.document
        storing.share(
            job,
            optimizer,
            stored_for(optimizer, document),
            content.states,
            _by_member(job, content.sums, "accumulated"),
            _by_member(job, content.weights, "weights"),
            lambda error: CheckpointError(one_line(f"{text}: {error}")),
        )
        if scaler is not None:
            scaler.load_state_dict(document["scaler"])
        return stored_extra(document, content.extra)


def _is_there(path: str, default: Any) -> bool:
    """Tell whether to read a file; an error that says anything but that it is absent is raised."""
    if default is NO_DEFAULT:
        return True
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    return True


def _meet(job: Job, error: BaseException | None, arguments: dict[str, str]) -> None:
    """Begin the call; raise ValueError on all ranks if one of them has arguments of another kind."""
    text = json.dumps(arguments).encode()
    state = job.meet(Kind.LOAD, error, (digest(text), *status.NO_DIGESTS[1:]))
    if state.settings:
        return
    first, *others = [json.loads(each) for each in status.gather_any(job.comm, text)]
    for rank, other in enumerate(others, start=1):
        for name in arguments:
            if other[name] != first[name]:
                told = (
                    f"all ranks must call load with the same {name}, got {first[name]} on rank 0, "
                    f"{other[name]} on rank {rank}"
                )
                raise status.agreed(ValueError(told))


def _content(job: Job, optimizer: Any, path: str, scaler: Any, via: str) -> Content:
    """Read what this rank needs; all ranks raise if one of them can't."""
    comm, mark, error, content = job.comm, bytes(16), None, None
    try:
        if via != "root" or comm.rank == 0:
            with opened(path) as file:
                _check(job, optimizer, file, scaler)
                mark = _mark(file)
    except BaseException as caught:
        error = caught
    # Another file of the same name, or none: a folder that each host has for itself.
    marks = comm.allgather(mark)
    each = via != "root" and len(set(marks)) == 1 and any(mark)
    if not each and via == "auto" and comm.rank > 0:
        error = None
    if not each and via == "each" and error is None:
        error = ValueError(
            f"via='each' needs the same file with checksums of pieces on all ranks, got another one at "
            f"{shown(path)} on some; pass via='root'"
        )
    status.raise_together(comm, error)
    try:
        if each or comm.rank == 0:
            with opened(path) as file:
                if _mark(file) != mark:
                    raise ValueError("the file must stay while it is loaded, got another one")
                content = _read(job, file, part=each)
    except BaseException as caught:
        error = caught
    status.raise_together(comm, error)
    return _shared_out(job, content) if not each else content  # type: ignore[return-value]


def _mark(file: File) -> bytes:
    """Return what tells a file from others, if a rank can verify parts of it; otherwise zeros."""
    alone = all(
        array.size <= PIECE or "pieces" in file.document["tensors"][name]
        for name, array in file.stand_ins.items()
    )
    return digest(json.dumps(file.document).encode()) if alone else bytes(16)


def _check(job: Job, optimizer: Any, file: File, scaler: Any) -> None:
    """Raise unless the file has the weights, states and averages of these optimizers, whole."""
    document = file.document
    check_scaler(document["scaler"], scaler)
    stored_extra(document, file.stand_ins)
    states, there = storing.members_of(stored_for(optimizer, document)), entries(job)
    for k, own in enumerate(arrays_by_optimizer(file.stand_ins, optimizer)):
        with nullcontext() if job.combined is None else combined_state.about(k):
            take_arrays(states[k], own, job.members[k])
            stored_state.require_state(job.members[k], states[k])
            storing.require_whole(job, k, states[k], there)


def _read(job: Job, file: File, *, part: bool) -> Content:
    """Read the weights, and of the states this rank's part or everything."""
    names = list(file.stand_ins)
    first = job.comm.rank == 0
    return Content(
        file.document,
        [_state(job, file, entry, part) for entry in entries(job)],
        {name: file.array(name) for name in weights_in_file(job)},
        {name: file.array(name) for name in names if first and _is_sum(name)},
        {name: file.array(name) for name in names if is_of_extra(name)},
    )


def _state(job: Job, file: File, entry: Entry, part: bool) -> Array:
    name = name_in_file(job, entry)
    if name not in file.stand_ins:  # a remainder, which a state may lack
        return np.zeros(entry.own.shape if part else entry.shape, entry.own.dtype)
    if entry.is_whole or not part:
        return file.array(name).reshape(entry.own.shape if part else entry.shape)
    found: Array = file.part(name, entry.start(job), entry.own.size).reshape(entry.own.shape)
    return found


def _shared_out(job: Job, content: Content | None) -> Content:
    """Give all ranks what the first one has read."""
    comm = job.comm
    told = b"" if content is None else json.dumps(content.document).encode()
    document = json.loads(status.gather_any(comm, told)[0])
    there = entries(job)
    states = [np.empty(entry.own.shape, entry.own.dtype) for entry in there]
    parts = storing.parts_of(job, there, None if content is None else content.states, states)
    from_first(comm, parts, job.routes.bucket, job.routes.staging)
    extra = dict(_extra_arrays(comm, content))
    weights = {name: np.empty_like(array) for name, array in weights_in_file(job).items()}
    whole = content.weights if content is not None else {}
    from_first(
        comm,
        [
            Part(
                [Stretch(k, rank, 0, array.size) for rank in range(comm.size)],
                array.reshape(-1),
                0,
                whole[name].reshape(-1) if whole else None,
            )
            for k, (name, array) in enumerate(weights.items())
        ],
        job.routes.bucket,
        job.routes.staging,
    )
    return Content(document, states, weights, content.sums if content else {}, extra)


def _extra_arrays(comm: Any, content: Content | None) -> Iterator[tuple[str, Array]]:
    """Give all ranks the arrays of extra that the first one has read."""
    own = content.extra if content is not None else {}
    told = json.dumps([[name, str(a.dtype), a.shape] for name, a in own.items()]).encode()
    for name, dtype, shape in json.loads(status.gather_any(comm, told)[0]):
        mine = np.ascontiguousarray(own[name]).tobytes() if own else b""
        data = bytearray(status.gather_any(comm, mine)[0])
        yield name, np.frombuffer(data, dtype).reshape(shape)


def _is_sum(name: str) -> bool:
    kinds = name.split("/")[:2]
    return kinds[0] == "accumulated" or (kinds[0].isdecimal() and kinds[-1] == "accumulated")


def _by_member(job: Job, arrays: Mapping[str, Array], kind: str) -> list[dict[str, Array]]:
    """Return arrays of a file by the names of the parameters, for each optimizer."""
    found = []
    for k in range(len(job.plans)):
        start = f"{prefix(job, k)}{kind}/"
        found.append({n.removeprefix(start): a for n, a in arrays.items() if n.startswith(start)})
    return found
