"""The ways of elements between ranks for a set of gradients, found once and kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from instep._support.bfloat16 import bfloat16
from instep.mpi.moving import Run, Staging, bucket_bytes, buckets
from instep.mpi.protocol import Communicator
from instep.mpi.shards import CHUNK, Stretch, shard_bytes

__all__ = ["Routes", "code_of"]

#: The dtypes of gradients by their codes in a table; 0 stands for an absent gradient.
_CODES = {"float64": 1, "float32": 2, "float16": 3, "bfloat16": 4}
_KNOWN: dict[np.dtype[Any], int] = {}
_MOST_KEPT = 8


def code_of(gradient: np.ndarray[Any, Any] | None) -> int:
    """Return the code of a gradient's dtype."""
    if gradient is None:
        return 0
    code = _KNOWN.get(gradient.dtype)
    if code is None:  # a dtype's name takes long to make
        code = _KNOWN[gradient.dtype] = _CODES[gradient.dtype.name]
    return code


def _dtypes_of(codes: bytes) -> list[np.dtype[Any] | None]:
    """Return the dtypes in a table of codes."""
    by_code: dict[int, np.dtype[Any] | None] = {0: None}
    for name, code in _CODES.items():
        if code in codes:
            by_code[code] = bfloat16("a gradient") if name == "bfloat16" else np.dtype(name)
    return [by_code[code] for code in codes]


class Ways(NamedTuple):
    """What moves in a step with these gradients."""

    tables: list[list[np.dtype[Any] | None]]  # by rank
    to_owners: list[list[list[Run]]]
    back: list[list[list[Run]]]
    all_runs: list[Run]


class Routes:
    """Who sends what to whom."""

    def __init__(
        self,
        comm: Communicator,
        stretches: list[list[Stretch]],
        items: Sequence[int],
        shared: bool,
    ) -> None:
        self.stretches = stretches
        self._comm, self._items = comm, items
        #: For each parameter, this rank's stretch; None without one.
        self.own = [next((s for s in each if s.rank == comm.rank), None) for each in stretches]
        #: For each parameter, the first element of this rank's stretch; 0 without one.
        self.starts = [0 if own is None else own.begin for own in self.own]
        self._wide = [8 if item == 8 else 4 for item in items]  # a gradient's sum
        #: Bytes that a rank receives at a time.
        self.bucket = bucket_bytes(shard_bytes(stretches, self._wide, comm.size))
        self.staging = Staging.of(comm.size)
        self._ways: dict[tuple[bytes, ...], Ways] = {}
        self._chunks: dict[bytes, list[int]] = {}
        self._shared = shared

    def of(self, codes: tuple[bytes, ...]) -> Ways:
        """Return the ways for these gradients: a table of codes for each rank."""
        found = self._ways.get(codes)
        if found is None:
            if len(self._ways) >= _MOST_KEPT:
                self._ways.clear()
            found = self._ways[codes] = self._found(codes)
        return found

    def everything(self) -> list[list[list[Run]]]:
        """Return the ways of all parameters to all ranks."""
        return self._buckets([s for each in self.stretches for s in each], self._wide)

    def _found(self, codes: tuple[bytes, ...]) -> Ways:
        tables = [_dtypes_of(each) for each in codes]
        there = [any(column) for column in zip(*codes, strict=True)]
        moved = [s for k, each in enumerate(self.stretches) if there[k] for s in each]
        if not self._shared:
            runs = [Run(s.parameter, s.begin, s.end) for s in moved if s.end > s.begin]
            return Ways(tables, [], [], runs)
        widest = [
            max((t[k].itemsize for t in tables if t[k] is not None), default=0)  # type: ignore[union-attr]
            for k in range(len(there))
        ]
        return Ways(
            tables, self._buckets(moved, widest), self._buckets(moved, list(self._items)), []
        )

    def _buckets(self, stretches: Sequence[Stretch], items: Sequence[int]) -> list[list[list[Run]]]:
        return buckets(stretches, items, self._comm.size, self.bucket)

    def in_order(self, included: bytes, width: int, values: Any) -> Any:
        """Give every rank the values of the chunks of all ranks, in the order of the parameters."""
        chunks = self._chunks.get(included) or self._counted(included)
        into = [np.empty(count * width) for count in chunks]
        self._comm.allgatherv(np.ascontiguousarray(values, np.float64), into)
        return np.concatenate(into)  # since each rank's stretches come before the next one's

    def _counted(self, included: bytes) -> list[int]:
        """Return how many chunks of these parameters each rank has."""
        chunks = [0] * self._comm.size
        for there, each in zip(included, self.stretches, strict=True):
            for stretch in each if there else ():
                chunks[stretch.rank] += -(-(stretch.end - stretch.begin) // CHUNK)
        if len(self._chunks) >= _MOST_KEPT:
            self._chunks.clear()
        self._chunks[included] = chunks
        return chunks
