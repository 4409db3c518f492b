"""A checkpoint that the first rank writes, while the others send what they own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from instep.checkpoint.document import made, path_text, require_scaler
from instep.checkpoint.extra import Encoded, encoded
from instep.checkpoint.format import ArraySource, Source, file_order, write
from instep.checkpoint.whole_file import replace_file
from instep.mpi import status
from instep.mpi.job import Job
from instep.mpi.protocol import CommunicationError
from instep.mpi.shards import CHUNK
from instep.mpi.status import Kind
from instep.mpi.storing import Entry, entries, refuse_pending

__all__ = ["name_in_file", "prefix", "save", "weights_in_file"]

Array = np.ndarray[Any, Any]
_GO, _STOP = b"g", b"s"


class Segment(NamedTuple):
    """Elements of an array that one rank owns and sends to the first, at most a bucket of them."""

    entry: Entry
    rank: int
    begin: int
    end: int


def save(job: Job, optimizer: Any, path: str | os.PathLike[str], extra: Any, scaler: Any) -> None:
    """Write a checkpoint, or raise on all ranks."""
    with job.turn("save"):
        job.require_usable()
        _write_together(job, optimizer, path, extra, scaler)


def _write_together(
    job: Job, optimizer: Any, path: str | os.PathLike[str], extra: Any, scaler: Any
) -> None:
    with job.moving("save"):
        text, own, error = "", encoded(None), None
        there: list[Entry] = []
        try:
            for plan in job.plans:
                plan.refuse_averages("save")
            refuse_pending(job, "save")
            text = path_text(path)
            require_scaler(scaler)
            there = entries(job)
            if job.comm.rank == 0:
                own = encoded(extra)
        except BaseException as caught:
            error = caught
        job.meet(Kind.SAVE, error)
        walk = _Walk(job, there)
        if job.comm.rank == 0:
            try:
                _write(job, optimizer, text, own, scaler, there, walk)
            except BaseException as caught:
                error = caught
        try:
            walk.stop() if job.comm.rank == 0 else walk.follow()
            status.raise_together(job.comm, error)
        except CommunicationError as failure:
            if error is None or status.is_agreed(failure):
                raise
            raise error from failure  # the first of the two says what happened


def weights_in_file(job: Job) -> dict[str, Array]:
    """Return the parameters by their names in a file."""
    return {
        f"{prefix(job, k)}weights/{name}": array
        for k, plan in enumerate(job.plans)
        for name, array in zip(plan.names, plan.arrays, strict=True)
    }


def name_in_file(job: Job, entry: Entry) -> str:
    """Return the name of a state or an average in a file."""
    kind = f"state/{entry.key}" if entry.key else "averages"
    return f"{prefix(job, entry.plan)}{kind}/{entry.name}"


def prefix(job: Job, k: int) -> str:
    """Return what precedes the names of an optimizer's tensors in a file."""
    return "" if job.combined is None else f"{k}/"


def _write(
    job: Job,
    optimizer: Any,
    path: str,
    extra: Encoded,
    scaler: Any,
    there: Sequence[Entry],
    walk: _Walk,
) -> None:
    # In the order of a file of one process, whose bytes these are.
    sources: dict[str, Source] = {}
    weights = weights_in_file(job)
    for k in range(len(job.plans)):
        start = f"{prefix(job, k)}weights/"
        sources |= {n: ArraySource(array) for n, array in weights.items() if n.startswith(start)}
        own = [entry for entry in there if entry.plan == k]
        for entry in sorted(own, key=lambda entry: not entry.key):  # averages last
            sources[name_in_file(job, entry)] = _source(entry, walk)
    sources |= {name: ArraySource(array) for name, array in extra.arrays.items()}

    def write_all(place: Path) -> None:
        write(place, made(optimizer, scaler, extra, sources), sources)

    replace_file(path, write_all)


def _source(entry: Entry, walk: _Walk) -> Source:
    if entry.is_whole:
        return ArraySource(entry.own.reshape(entry.shape))
    return _FromRanks(entry, walk)


class _FromRanks:
    """An array of which each rank has stretches, as a source of a checkpoint on the first rank."""

    def __init__(self, entry: Entry, walk: _Walk) -> None:
        self.dtype, self.shape = entry.own.dtype, entry.shape
        self._entry, self._walk = entry, walk

    def pieces(self) -> Iterator[Array]:
        """Yield the elements, in memory that the next piece overwrites."""
        for segment in self._walk.segments[id(self._entry)]:
            yield self._walk.take(segment)


class _Walk:
    """The segments of all arrays in the order of the file, which all ranks go through together.

    The first rank says before each segment of another rank whether it goes on: its disk may be
    full.
    """

    def __init__(self, job: Job, there: Sequence[Entry]) -> None:
        self._job = job
        shared = {name_in_file(job, entry): entry for entry in there if not entry.is_whole}
        order = file_order({name: entry.own.dtype for name, entry in shared.items()})
        self.segments = {id(shared[name]): self._of(shared[name]) for name in order}
        self._in_order = [s for each in self.segments.values() for s in each if s.rank > 0]
        self._taken = 0
        self._room = np.empty(0, np.uint8)

    def _of(self, entry: Entry) -> list[Segment]:
        item = entry.own.dtype.itemsize
        length = max(1, self._job.routes.bucket // (CHUNK * item)) * CHUNK
        return [
            Segment(entry, stretch.rank, begin, min(begin + length, stretch.end))
            for stretch in entry.stretches(self._job)
            for begin in range(stretch.begin, stretch.end, length)
        ]

    def take(self, segment: Segment) -> Array:
        """Return the elements of a segment, on the first rank."""
        if segment.rank == 0:
            return self._own(segment)
        self._job.comm.allgather(_GO)
        self._taken += 1
        dtype = segment.entry.own.dtype
        count = (segment.end - segment.begin) * dtype.itemsize
        if len(self._room) < count:
            self._room = np.empty(count, np.uint8)
        into = [self._room[: count if rank == segment.rank else 0] for rank in self._ranks()]
        self._job.comm.alltoallv([_NOTHING for _ in self._ranks()], into)
        found: Array = self._room[:count].view(dtype)
        return found

    def stop(self) -> None:
        """Say that the first rank takes no further segment, if others wait for it."""
        if self._taken < len(self._in_order):
            self._job.comm.allgather(_STOP)

    def follow(self) -> None:
        """Send what the first rank takes, until it stops."""
        me = self._job.comm.rank
        for segment in self._in_order:
            if self._job.comm.allgather(_GO)[0] == _STOP:
                return
            mine = self._own(segment).view(np.uint8) if segment.rank == me else _NOTHING
            send = [mine if rank == 0 else _NOTHING for rank in self._ranks()]
            self._job.comm.alltoallv(send, [_NOTHING for _ in self._ranks()])

    def _own(self, segment: Segment) -> Array:
        start = segment.entry.start(self._job)
        return segment.entry.own.reshape(-1)[segment.begin - start : segment.end - start]

    def _ranks(self) -> range:
        return range(self._job.comm.size)


_NOTHING = np.empty(0, np.uint8)
