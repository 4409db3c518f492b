"""Leaving a job: a rank that ends takes part in one more round, so that none waits for it for ever."""

from __future__ import annotations

import atexit
from contextlib import suppress

from instep.mpi import status
from instep.mpi.protocol import CommunicationError, Communicator

__all__ = ["Seat"]


class Seat:
    """A rank's place in a job, which it leaves by close() or, in the order of the jobs, when the interpreter ends."""

    def __init__(self, comm: Communicator) -> None:
        self.comm = comm
        self.step = 0
        self.broken = ""  # why the ranks have parted
        self.is_empty = False
        # Ranks that are threads end before the interpreter does, and say so themselves.
        if getattr(comm, "leaves_at_exit", True):
            _SEATS.append(self)

    def give_up(self) -> None:
        """Leave before the job has begun, as all ranks do."""
        self._get_up()
        self.comm.close()

    def leave(self) -> None:
        """Tell the other ranks that this one is gone; raise CommunicationError on those that go on."""
        if self.is_empty:
            return
        self._get_up()
        if self.broken:
            return
        status.meet(self.comm, status.Kind.LEAVE, self.step)
        self.comm.close()

    def _get_up(self) -> None:
        self.is_empty = True
        with suppress(ValueError):
            _SEATS.remove(self)


_SEATS: list[Seat] = []


@atexit.register
def _leave_all() -> None:
    while _SEATS:
        seat = _SEATS[0]
        if seat.broken:  # MPI itself would wait for what is on its way
            seat.comm.abort(seat.broken)
        with suppress(CommunicationError):  # the others know
            seat.leave()
