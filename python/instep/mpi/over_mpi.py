"""Ranks of MPI, through mpi4py. Importing this module starts MPI, as importing ``mpi4py.MPI`` does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from instep._support.hosts import host
from instep._support.wording import kind
from instep.mpi.backend import FRAME, Backend, Bytes

__all__ = ["MPIRanks"]

MPI: Any = host("instep.mpi", "mpi4py.MPI", "mpi4py", "mpi")

_LONGEST = 64 << 20  # bytes of a message: counts beyond 2^31 fail on Open MPI up to 5
_TAGS = 1 << 15  # that every MPI has
# Waiting: as MPI's own calls for so long, and so much longer for every byte on its way (at 1 GB/s); then asleep, since
# Open MPI's calls never are.
_AWAKE = 200e-6
_AWAKE_A_BYTE = 1e-9
_SHORTEST_SLEEP, _LONGEST_SLEEP = 50e-6, 1e-3


class MPIRanks(Backend):
    """The ranks of an MPI communicator.

    It has two duplicates of the communicator given, one for its calls, the other to tell who is
    there when a call waits too long. All ranks must make it together, and close it together.
    Pieces go straight from and to the caller's memory, in messages of at most 64 MiB: how many,
    sender and receiver both know from the piece's length. MPI is called from the caller's thread.

    Parameters
    ----------
    comm
        An intracommunicator of mpi4py.
    timeout
        Seconds that a call waits for the other ranks; None: as long as it takes.

    Raises
    ------
    TypeError
        If `comm` is not an intracommunicator.
    ValueError
        If `timeout` is not above 0.
    MissingRanksError
        If not all ranks make it.

    Examples
    --------
    >>> from mpi4py import MPI
    >>> from instep.mpi.over_mpi import MPIRanks
    >>> ranks = MPIRanks(MPI.COMM_SELF)
    >>> ranks.allgather(b"status")
    [b'status']
    >>> ranks.close()
    """

    _errors = (MPI.Exception,)

    def __init__(self, comm: Any, *, timeout: float | None = 600.0) -> None:
        if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
            raise TypeError(f"comm must be an intracommunicator of mpi4py, got {kind(comm)}")
        super().__init__(comm.rank, comm.size, timeout)
        self._can_ask = False
        self._comm = self._guarded("the constructor", self._duplicate, comm)
        self._notices = self._guarded("the constructor", self._duplicate, comm)
        self._can_ask = True
        self._sent, self._swapped_in = (np.empty(FRAME * self.size, np.uint8) for _ in range(2))
        self._start = self._prepared()
        self._sent_bytes = self._sent.data

    @property
    def is_over(self) -> bool:
        """Whether MPI has ended, so that no rank can be told anything."""
        return bool(MPI.Is_finalized())

    def abort(self, reason: str) -> None:
        """End the job on all ranks, so that none waits for another."""
        print(f"instep.mpi: rank {self.rank} ends the job: {reason}", file=sys.stderr, flush=True)
        MPI.COMM_WORLD.Abort(1)

    def close(self) -> None:
        """Free the two communicators, unless a call failed: something may still be on its way in them."""
        if not self._fault and not MPI.Is_finalized():
            for comm in (self._comm, self._notices):
                comm.Free()
        super().close()

    def _duplicate(self, comm: Any) -> Any:
        made, request = comm.Idup()
        self._pending += made, request
        self._wait(request.Test)
        made.Set_errhandler(MPI.ERRORS_RETURN)  # which mpi4py turns into exceptions
        return made

    def _prepared(self) -> Callable[[], Any]:
        """Return what starts a swap of frames: prepared once where MPI can, as from 4.0 on."""
        arrays = [self._sent, MPI.BYTE], [self._swapped_in, MPI.BYTE]
        try:
            request = self._comm.Alltoall_init(*arrays)
        except (NotImplementedError, MPI.Exception):
            return lambda: self._comm.Ialltoall(*arrays)

        def start() -> Any:
            request.Start()
            return request

        return start

    def _swap(self, frames: bytes) -> bytes:
        self._sent_bytes[:] = frames
        request = self._start()
        self._pending.append(request)
        self._wait(request.Test)
        return self._swapped_in.tobytes()

    def _move(self, send: Sequence[Bytes], receive: Sequence[Bytes]) -> None:
        requests = self._pending
        tag, moved = self._calls % _TAGS, 0
        # Each rank begins with its neighbours, so that not all send to the same one.
        for step in range(1, self.size):
            source, dest = (self.rank - step) % self.size, (self.rank + step) % self.size
            for begin, piece, other in (
                (self._comm.Irecv, receive[source], source),
                (self._comm.Isend, send[dest], dest),
            ):
                moved += piece.size
                for first in range(0, piece.size, _LONGEST):
                    part = piece[first : first + _LONGEST]
                    requests.append(begin([part, MPI.BYTE], other, tag))
        if requests:
            testall = MPI.Request.Testall
            self._wait(lambda: testall(requests), moved)

    def _wait(self, test: Callable[[], bool], moved: int = 0) -> None:
        """Wait until MPI is done, the others give up, or it has been too long."""
        if test():
            return
        asleep = time.monotonic() + _AWAKE + moved * _AWAKE_A_BYTE
        while time.monotonic() < asleep:
            if test():
                return
        pause = _SHORTEST_SLEEP
        while not test():
            if self._left() <= 0 or self._asked():
                raise self._gave_up()
            time.sleep(pause)
            pause = min(pause * 1.25, _LONGEST_SLEEP)

    def _asked(self) -> bool:
        """Whether another rank has given up."""
        return bool(self._can_ask and self._notices.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG))

    def _answers(self, seconds: float) -> set[int]:
        answered = {self.rank}
        end, nothing = time.monotonic() + seconds, [bytearray(), MPI.BYTE]
        others = [k for k in range(self.size) if k != self.rank]
        self._pending.extend(self._notices.Isend(nothing, k) for k in others)
        status = MPI.Status()
        while len(answered) < self.size and time.monotonic() < end:
            while self._notices.Iprobe(MPI.ANY_SOURCE, MPI.ANY_TAG, status):
                self._notices.Recv(nothing, status.source)
                answered.add(status.source)
            time.sleep(_LONGEST_SLEEP)
        return answered
