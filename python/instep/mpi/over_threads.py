"""Ranks as threads of one process: for tests, with faults where a test wants them, and to try a program without MPI."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, NoReturn, TypeVar

import numpy as np

from instep.mpi.backend import FRAME, Backend, Bytes
from instep.mpi.protocol import Buffer, CommunicationError

__all__ = ["Call", "ThreadRanks", "run"]

Result = TypeVar("Result")


class Call:
    """What a rank is about to do: given to the function `before` of `run`, which may change it.

    Attributes
    ----------
    rank : int
        Whose call it is.
    number : int
        How many calls the rank has made before, counted from 0.
    name : str
        ``"allgather"``, ``"alltoallv"`` or ``"allgatherv"``.
    send : list
        What it sends: the one record or piece, or a piece for each rank. Another one may be put in its
        place, of another length, too.

    Examples
    --------
    >>> from instep.mpi import over_threads
    >>> call = over_threads.Call(0, 2, "allgather", [b"status"])
    >>> call.name
    'allgather'
    """

    def __init__(self, rank: int, number: int, name: str, send: list[Buffer]) -> None:
        self.rank, self.number, self.name, self.send = rank, number, name, send


class _Meeting:
    """One point that all ranks must reach, each with something for the others."""

    def __init__(self, size: int) -> None:
        self.brought: list[Any] = [None] * size
        self.arrived: set[int] = set()
        self.missing: set[int] | None = None  # once somebody has given up


class _World:
    """What the ranks share."""

    def __init__(self, size: int, hosts: Sequence[str] | None) -> None:
        self.size = size
        self.hosts = hosts
        self.changed = threading.Condition()
        self.meetings: dict[int, _Meeting] = {}
        self.gone: set[int] = set()
        self.gave_up: set[int] = set()
        self.ended = ""  # why, once a rank has aborted

    def tell(self, ranks: set[int], rank: int) -> None:
        with self.changed:
            ranks.add(rank)
            self.changed.notify_all()


class ThreadRanks(Backend):
    """One of several ranks that are threads of this process; `run` makes them.

    A call doesn't wait for a rank whose function has ended: it raises `MissingRanksError` at once.

    Parameters
    ----------
    world
        What the ranks share.
    rank
        The number of this one.
    timeout
        Seconds that a call waits for the other ranks.
    before
        Called before each call of a rank.

    Raises
    ------
    ValueError
        If `timeout` is not above 0.

    Examples
    --------
    >>> from instep.mpi import over_threads
    >>> ranks = over_threads.run(2, lambda comm: comm.split_by_host())
    >>> [rank.result() for rank in ranks]
    [(0, 2), (1, 2)]
    """

    leaves_at_exit = False  # `leave` has told the others by then

    def __init__(
        self,
        world: Any,
        rank: int,
        timeout: float | None,
        before: Callable[[Call], object] | None,
    ) -> None:
        super().__init__(rank, world.size, timeout)
        self._world = world
        self._before = before
        self._made = 0
        self._met = 0

    def allgather(self, record: bytes) -> list[bytes]:
        """Give every rank the records of all ranks, in the order of the ranks."""
        (record,) = self._shown("allgather", [record])
        return super().allgather(record)

    def alltoallv(self, send: Sequence[Buffer], receive: Sequence[Buffer]) -> None:
        """Send each rank a piece of its own, and receive one from each."""
        super().alltoallv(self._shown("alltoallv", send), receive)

    def allgatherv(self, mine: Buffer, into: Sequence[Buffer]) -> None:
        """Give every rank the pieces of all ranks, whose lengths every rank knows."""
        (mine,) = self._shown("allgatherv", [mine])
        super().allgatherv(mine, into)

    def abort(self, reason: str) -> NoReturn:
        """End the calls of all ranks with `CommunicationError`, and this one."""
        with self._world.changed:
            self._world.ended = self._world.ended or f"rank {self.rank} ended the job: {reason}"
            self._world.changed.notify_all()
        raise CommunicationError(self._world.ended)

    def leave(self) -> None:
        """Make no call any more; ranks that wait for this one are told so."""
        self._world.tell(self._world.gone, self.rank)

    def _shown(self, name: str, send: Sequence[Buffer]) -> Sequence[Buffer]:
        if self._before is None:
            return send
        call = Call(self.rank, self._made, name, list(send))
        self._made += 1
        self._before(call)
        return call.send

    def _swap(self, frames: bytes) -> bytes:
        own = slice(self.rank * FRAME, (self.rank + 1) * FRAME)
        return b"".join(others[own] for others in self._meet(frames))

    def _move(self, send: Sequence[Bytes], receive: Sequence[Bytes]) -> None:
        for rank, pieces in enumerate(self._meet(send)):
            if rank != self.rank:
                np.copyto(receive[rank], pieces[self.rank])
        self._meet(None)  # before a rank changes what others still read

    def _meet(self, mine: Any) -> list[Any]:
        """Wait for all ranks, and return what each brought."""
        world = self._world
        number, self._met = self._met, self._met + 1
        with world.changed:
            world.meetings.pop(number - 2, None)  # all have left it, as all came to the next
            meeting = world.meetings.setdefault(number, _Meeting(self.size))
            meeting.brought[self.rank] = mine
            meeting.arrived.add(self.rank)
            world.changed.notify_all()
            while len(meeting.arrived) < self.size or meeting.missing is not None:
                if world.ended:
                    raise CommunicationError(world.ended)
                self._look(meeting)
                world.changed.wait(None if self._timeout is None else self._left())
            return list(meeting.brought)

    def _look(self, meeting: _Meeting) -> None:
        """Raise if not all ranks can come any more, or it has been too long; what one rank finds, all raise."""
        if meeting.missing is None:
            gone = self._world.gone - meeting.arrived
            if gone or self._world.gave_up or self._left() <= 0:
                absent = set(range(self.size)) - meeting.arrived
                meeting.missing = gone or absent - self._world.gave_up
        if meeting.missing is not None:
            self._world.tell(self._world.gave_up, self.rank)
            waited = time.monotonic() - self._begun
            raise self._missing(waited, meeting.missing - {self.rank})

    def _answers(self, seconds: float) -> set[int]:
        world = self._world
        world.tell(world.gave_up, self.rank)
        with world.changed:
            world.changed.wait_for(lambda: len(world.gave_up) == self.size, seconds)
            return set(world.gave_up)

    def _host(self) -> bytes:
        hosts = self._world.hosts
        return super()._host() if hosts is None else hosts[self.rank].encode().ljust(32)


def run(
    size: int,
    function: Callable[[ThreadRanks], Result],
    *,
    timeout: float | None = 10.0,
    limit: float = 60.0,
    before: Callable[[Call], object] | None = None,
    hosts: Sequence[str] | None = None,
) -> list[Future[Result]]:
    """Run a function on every rank, each in a thread, and return what became of it on each.

    Parameters
    ----------
    size
        The number of ranks.
    function
        Called with the rank's communicator. When it returns or raises, the rank has left: whoever
        waits for it gets `MissingRanksError`.
    timeout
        Seconds that a call waits for the other ranks; None: as long as it takes.
    limit
        Seconds after which a rank that goes on is given up. Its thread can't be stopped; it doesn't
        keep the process from ending.
    before
        Called before each call of a rank, in the rank's thread, with a `Call`. It may raise, wait, or
        change what is sent.
    hosts
        The name of each rank's host, up to 32 bytes; None: all are on this one.

    Returns
    -------
    list of concurrent.futures.Future
        All of them done: ``result()`` returns what the rank's function returned or raises what it
        raised, ``exception()`` returns the exception or None. Of a rank that was given up it is
        TimeoutError.

    Raises
    ------
    ValueError
        If `timeout` is not above 0.

    Examples
    --------
    >>> from instep.mpi import over_threads
    >>> def each(comm):
    ...     if comm.rank == 2:
    ...         raise ZeroDivisionError
    ...     return comm.allgather(bytes([comm.rank]))
    >>> ranks = over_threads.run(3, each)
    >>> [type(rank.exception()).__name__ for rank in ranks]
    ['MissingRanksError', 'MissingRanksError', 'ZeroDivisionError']
    >>> ranks[0].exception().ranks
    (2,)
    """
    world = _World(size, hosts)
    comms = [ThreadRanks(world, rank, timeout, before) for rank in range(size)]
    ends: list[Future[Result]] = [Future() for _ in comms]

    def one(comm: ThreadRanks, end: Future[Result]) -> None:
        try:
            result = function(comm)
        except BaseException as error:
            _settle(end, error=error)
        else:
            _settle(end, result)
        finally:
            comm.leave()

    threads = [
        threading.Thread(target=one, args=both, name=f"rank {both[0].rank}", daemon=True)
        for both in zip(comms, ends, strict=True)
    ]
    for thread in threads:
        thread.start()
    latest = time.monotonic() + limit
    for thread, end in zip(threads, ends, strict=True):
        thread.join(max(0.0, latest - time.monotonic()))
        if thread.is_alive():
            _settle(end, error=TimeoutError(f"{thread.name} goes on after {limit:g} s"))
    return ends


def _settle(end: Future[Result], result: Any = None, *, error: BaseException | None = None) -> None:
    """Set what became of a rank, unless it has been given up."""
    with contextlib.suppress(InvalidStateError):
        if error is None:
            end.set_result(result)
        else:
            end.set_exception(error)
