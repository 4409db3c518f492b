"""Moves elements of arrays between ranks, in buckets: gradients to the owners, and parameters back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from instep.mpi.protocol import Communicator
from instep.mpi.shards import CHUNK, Stretch

__all__ = [
    "Part",
    "Room",
    "Run",
    "Staging",
    "all_at_once",
    "bucket_bytes",
    "buckets",
    "from_first",
    "gather",
    "to_first",
    "to_owners",
]

_LARGEST_BUCKET = 64 << 20  # bytes
_LEAST_BUCKET = 8 << 20  # so that a small shard moves at once; no more memory is taken than moves
_ALIGNED = 16  # bytes: where each run in a packed piece begins

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Flat = np.ndarray[Any, Any]  # one axis, the elements side by side


class Run(NamedTuple):
    """Elements of a parameter that move together."""

    parameter: int
    begin: int
    end: int


class Room:
    """Memory for runs side by side, kept from bucket to bucket and from step to step."""

    def __init__(self) -> None:
        self._memory = np.empty(0, np.uint8)

    def packed(self, runs: Sequence[Run], arrays: Sequence[Flat | None]) -> Bytes:
        """Return the bytes of these elements: where they are, if they lie side by side there."""
        there = [run for run in runs if arrays[run.parameter] is not None]
        if len(there) == 1:
            return _bytes(_part(arrays, there[0]))
        place, views = self.room(there, [None if a is None else a.dtype for a in arrays])
        for run, view in zip(there, views, strict=True):
            np.copyto(view, _part(arrays, run))
        return place

    def room(
        self, runs: Sequence[Run], dtypes: Sequence[np.dtype[Any] | None]
    ) -> tuple[Bytes, list[Any]]:
        """Return memory for these elements, and for each run the array there, None if it is absent."""
        spans: list[tuple[int, int, np.dtype[Any]] | None] = []
        end = 0
        for run in runs:
            dtype = dtypes[run.parameter]
            if dtype is None:
                spans.append(None)
                continue
            begin = -(-end // _ALIGNED) * _ALIGNED
            end = begin + (run.end - run.begin) * dtype.itemsize
            spans.append((begin, end, dtype))
        if len(self._memory) < end:
            # Buckets differ a little. A room that grew again would leave a hole in the heap of the C library.
            self._memory = np.empty(end + end // 8, np.uint8)
        place = self._memory[:end]
        views = [None if span is None else place[span[0] : span[1]].view(span[2]) for span in spans]
        return place, views


class Staging(NamedTuple):
    """The memory through which elements move: a bucket to send and a bucket to receive."""

    sending: list[Room]  # by rank
    receiving: list[Room]

    @classmethod
    def of(cls, ranks: int) -> Staging:
        """Make it, still empty."""
        return cls([Room() for _ in range(ranks)], [Room() for _ in range(ranks)])


def bucket_bytes(largest_shard: int) -> int:
    """Return the size of a bucket: what a rank receives at a time."""
    return min(_LARGEST_BUCKET, max(_LEAST_BUCKET, largest_shard))


def buckets(
    stretches: Sequence[Stretch], items: Sequence[int], ranks: int, size: int
) -> list[list[list[Run]]]:
    """Return for each bucket and each owner what moves: at most `size` bytes to or from all ranks.

    `items` has for each parameter the bytes an element of it takes at most. Every run but a
    stretch's last has whole chunks.
    """
    share = max(1, size // ranks)
    of_owners: list[list[list[Run]]] = [[] for _ in range(ranks)]
    room = [0] * ranks
    for stretch in stretches:
        item, owner, begin = items[stretch.parameter], stretch.rank, stretch.begin
        while begin < stretch.end:
            if room[owner] < min(CHUNK, stretch.end - begin) * item:
                of_owners[owner].append([])
                room[owner] = max(share, CHUNK * item)
            chunks = room[owner] // (CHUNK * item)
            end = min(stretch.end, begin + chunks * CHUNK) if chunks else stretch.end
            of_owners[owner][-1].append(Run(stretch.parameter, begin, end))
            room[owner] -= (end - begin) * item
            begin = end
    count = max(map(len, of_owners), default=0)
    return [[own[k] if k < len(own) else [] for own in of_owners] for k in range(count)]


def to_owners(
    comm: Communicator,
    plan: Sequence[Sequence[Sequence[Run]]],
    mine: Sequence[Flat | None],
    tables: Sequence[Sequence[np.dtype[Any] | None]],
    staging: Staging,
) -> Iterator[list[tuple[Run, list[Flat]]]]:
    """Send gradients to the owners; yield, bucket by bucket, the runs of this rank with the gradients of all ranks.

    `tables` has for each rank the dtypes of its gradients, None for an absent one. What is yielded
    lies in memory that the next bucket overwrites.
    """
    me = comm.rank
    sending, receiving = staging
    for owners in plan:
        send: list[Bytes] = []
        receive: list[Bytes] = []
        places = []
        for rank in range(comm.size):
            other = rank != me
            send.append(sending[rank].packed(owners[rank] if other else [], mine))
            place, views = receiving[rank].room(owners[me] if other else [], tables[rank])
            receive.append(place)
            places.append(views)
        comm.alltoallv(send, receive)
        yield [(run, _of_all(run, k, me, mine, places)) for k, run in enumerate(owners[me])]


def all_at_once(
    comm: Communicator,
    runs: Sequence[Run],
    mine: Sequence[Flat | None],
    tables: Sequence[Sequence[np.dtype[Any] | None]],
    staging: Staging,
) -> list[tuple[Run, list[Flat]]]:
    """Give every rank all gradients of all ranks."""
    me = comm.rank
    if comm.size == 1:
        return [(run, _of_all(run, k, me, mine, [[]])) for k, run in enumerate(runs)]
    own = staging.sending[me].packed(runs, mine)
    places: list[Sequence[Any]] = []
    into: list[Bytes] = []
    for rank in range(comm.size):
        place, views = (own, []) if rank == me else staging.receiving[rank].room(runs, tables[rank])
        into.append(place)
        places.append(views)
    comm.allgatherv(own, into)
    return [(run, _of_all(run, k, me, mine, places)) for k, run in enumerate(runs)]


def gather(
    comm: Communicator,
    plan: Sequence[Sequence[Sequence[Run]]],
    arrays: Sequence[Flat],
    staging: Staging,
) -> None:
    """Give every rank the elements of all owners, in the same places of its own arrays."""
    tables = [array.dtype for array in arrays]
    for owners in plan:
        into: list[Bytes] = []
        after: list[tuple[Run, Flat]] = []
        for rank, runs in enumerate(owners):
            if len(runs) == 1:
                into.append(_bytes(_part(arrays, runs[0])))
                continue
            if rank == comm.rank:
                into.append(staging.sending[rank].packed(runs, arrays))
                continue
            place, views = staging.receiving[rank].room(runs, tables)
            into.append(place)
            after += zip(runs, views, strict=True)
        comm.allgatherv(into[comm.rank], into)
        for run, view in after:
            np.copyto(_part(arrays, run), view)


def _of_all(
    run: Run, k: int, me: int, mine: Sequence[Flat | None], places: Sequence[Sequence[Any]]
) -> list[Flat]:
    """Return the gradients of a run that are there, in the order of the ranks."""
    own = None if mine[run.parameter] is None else _part(mine, run)
    each = [own if rank == me else views[k] for rank, views in enumerate(places)]
    return [gradient for gradient in each if gradient is not None]


def _part(arrays: Sequence[Flat | None], run: Run) -> Flat:
    array = arrays[run.parameter]
    assert array is not None
    return array[run.begin : run.end]


def _bytes(array: Flat) -> Bytes:
    return array.view(np.uint8)


class Part(NamedTuple):
    """One array of which each rank has stretches: where the first rank has, or will have, all of it."""

    stretches: Sequence[Stretch]  # whose `parameter` is the array's number
    own: Flat  # this rank's stretch
    start: int  # the element with which it begins
    whole: Flat | None  # on the first rank


def to_first(comm: Communicator, parts: Sequence[Part], size: int, staging: Staging) -> None:
    """Put the stretches of all ranks into the first rank's whole arrays."""
    owned, wholes = [part.own for part in parts], [part.whole for part in parts]
    dtypes = [array.dtype for array in owned]
    for owners in _buckets_of(comm, parts, size):
        own = [_shifted(run, parts) for run in owners[comm.rank]]
        mine = staging.sending[0].packed(own, owned)
        into: list[Bytes] = []
        after: list[tuple[Run, Flat]] = []
        for rank, runs in enumerate(owners):
            place, views = staging.receiving[rank].room(runs if comm.rank == 0 else [], dtypes)
            into.append(place)
            after += zip(runs, views, strict=False)
        comm.alltoallv([mine if rank == 0 else _NOTHING for rank in range(comm.size)], into)
        for run, view in after:
            np.copyto(_part(wholes, run), view)


def from_first(comm: Communicator, parts: Sequence[Part], size: int, staging: Staging) -> None:
    """Put the first rank's whole arrays into the stretches of all ranks."""
    owned, wholes = [part.own for part in parts], [part.whole for part in parts]
    dtypes = [array.dtype for array in owned]
    for owners in _buckets_of(comm, parts, size):
        send = [
            staging.sending[rank].packed(runs, wholes) if comm.rank == 0 else _NOTHING
            for rank, runs in enumerate(owners)
        ]
        place, views = staging.receiving[0].room(owners[comm.rank], dtypes)
        comm.alltoallv(send, [place if rank == 0 else _NOTHING for rank in range(comm.size)])
        for run, view in zip(owners[comm.rank], views, strict=True):
            np.copyto(_part(owned, _shifted(run, parts)), view)


_NOTHING = np.empty(0, np.uint8)


def _buckets_of(comm: Communicator, parts: Sequence[Part], size: int) -> list[list[list[Run]]]:
    stretches = [stretch for part in parts for stretch in part.stretches]
    return buckets(stretches, [part.own.dtype.itemsize for part in parts], comm.size, size)


def _shifted(run: Run, parts: Sequence[Part]) -> Run:
    start = parts[run.parameter].start
    return Run(run.parameter, run.begin - start, run.end - start)
