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
        self.is_deserted = False  # others have left, and take part in no further round
        self.is_empty = False
        # Ranks that are threads end before the interpreter does, and say so themselves.
        if getattr(comm, "leaves_at_exit", True):
            _SEATS.append(self)

    def give_up(self) -> None:
        """Leave before the job has begun, as all ranks do."""
        self._get_up()
        self.comm.close()

    def leave(self) -> None:
        """Tell the other ranks that this one is gone; raise CommunicationError on those that go on.

        A rank whose job is broken keeps its seat: when the interpreter ends, it ends the job.
        """
        if self.is_empty or self.broken:
            return
        try:
            is_over = getattr(self.comm, "is_over", False)
            if not self.is_deserted and not is_over:
                status.meet(self.comm, status.Kind.LEAVE, self.step)
            if not self.is_deserted:
                self.comm.close()
        except BaseException as error:
            if not status.is_agreed(error):
                self.broken = f"{type(error).__name__} while leaving: {error}"
            raise
        finally:
            if not self.broken:
                self._get_up()

    def _get_up(self) -> None:
        self.is_empty = True
        with suppress(ValueError):
            _SEATS.remove(self)


_SEATS: list[Seat] = []


@atexit.register
def _leave_all() -> None:
    while _SEATS:
        seat = _SEATS[0]
        with suppress(CommunicationError, KeyboardInterrupt):  # the others know, or can't be told
            seat.leave()
        if seat.broken:  # MPI itself would wait for what is on its way
            _SEATS.remove(seat)
            seat.comm.abort(seat.broken)
