"""Times the parts of a step of several ranks from outside: around the communicator, and around the core's calls."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

__all__ = ["PARTS", "Parts", "TimedRanks", "watch"]

STATUS, GRADIENTS, SUMS, NORM, SWEEP, PARAMETERS = PARTS = (
    "status",
    "gradients",
    "sums",
    "norm",
    "sweep",
    "parameters",
)
OVER_THE_WIRE = (STATUS, GRADIENTS, NORM, PARAMETERS)


class Parts:
    """Seconds and bytes of the parts of the steps since `clear`, on this rank."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.bytes_sent = dict.fromkeys(PARTS, 0)
        self._inside = 0.0  # seconds of calls of the communicator inside a call of the core
        self._in_core = False
        self._has_swept = False

    def begin_step(self) -> None:
        self._has_swept = False

    @contextmanager
    def of_wire(self, part: str, sent: int) -> Iterator[None]:
        part = NORM if self._in_core else PARAMETERS if self._has_swept else part
        self.bytes_sent[part] += sent
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            self.seconds[part] += took
            self._inside += took

    @contextmanager
    def of_core(self, part: str) -> Iterator[None]:
        self._inside, self._in_core = 0.0, True
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[part] += time.perf_counter() - began - self._inside
            self._in_core = False
            self._has_swept = part == SWEEP


class TimedRanks:
    """A communicator that passes each call on, and says how long it took."""

    def __init__(self, comm: Any, parts: Parts) -> None:
        self._comm, self._parts = comm, parts

    def __getattr__(self, name: str) -> Any:
        return getattr(self._comm, name)

    def allgather(self, record: bytes) -> list[bytes]:
        with self._parts.of_wire(STATUS, len(record) * (self._comm.size - 1)):
            found: list[bytes] = self._comm.allgather(record)
            return found

    def alltoallv(self, send: Sequence[Any], receive: Sequence[Any]) -> None:
        sent = sum(p.nbytes for k, p in enumerate(send) if k != self._comm.rank)
        with self._parts.of_wire(GRADIENTS, sent):
            self._comm.alltoallv(send, receive)

    def allgatherv(self, mine: Any, into: Sequence[Any]) -> None:
        sent = memoryview(mine).nbytes * (self._comm.size - 1)
        with self._parts.of_wire(GRADIENTS, sent):
            self._comm.allgatherv(mine, into)

    # A Communicator is known by its attributes, which must be there before any is looked up.

    @property
    def rank(self) -> int:
        return int(self._comm.rank)

    @property
    def size(self) -> int:
        return int(self._comm.size)

    def split_by_host(self) -> Any:
        return self._comm.split_by_host()

    def here(self, seconds: float) -> Any:
        return self._comm.here(seconds)

    def abort(self, reason: str) -> Any:
        return self._comm.abort(reason)

    def close(self) -> None:
        self._comm.close()


class _TimedCore:
    """The core's part of a step, timed."""

    def __init__(self, ranks: Any, parts: Parts) -> None:
        self._ranks, self._parts = ranks, parts
        self.prepare: Callable[..., Any] = ranks.prepare

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ranks, name)

    def sum_up(self, runs: Any) -> None:
        with self._parts.of_core(SUMS):
            self._ranks.sum_up(runs)

    def take(self, exchange: Any) -> Any:
        with self._parts.of_core(SWEEP):
            return self._ranks.take(exchange)


def watch(optimizer: Any, parts: Parts) -> None:
    """Time the core of a Distributed that was made with a `TimedRanks` of the same parts."""
    job = optimizer._job
    job.ranks = _TimedCore(job.ranks, parts)
