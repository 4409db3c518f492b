"""What `instep.mpi` asks of whatever connects the ranks, and the errors that a call of it raises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from instep._support import documentation

__all__ = ["Buffer", "CommunicationError", "Communicator", "MissingRanksError"]

#: What has contiguous memory: bytes, a bytearray, a memoryview, a NumPy array of any dtype.
Buffer = Any


class CommunicationError(ConnectionError):
    """The ranks made different calls, or the transport failed.

    Examples
    --------
    >>> import instep.mpi
    >>> issubclass(instep.mpi.MissingRanksError, instep.mpi.CommunicationError)
    True
    """


class MissingRanksError(CommunicationError, TimeoutError):
    """A call has waited in vain for some of the ranks.

    Parameters
    ----------
    message
        What the error says.
    ranks
        The numbers of the ranks that didn't answer, ascending. It is empty if all of them answered:
        then one of them came too late, or they wait in different calls.

    Attributes
    ----------
    ranks : tuple of int
        As given.

    Raises
    ------
    TypeError
        If `ranks` are not ints.

    Examples
    --------
    >>> import instep.mpi
    >>> instep.mpi.MissingRanksError("no answer from rank 2", [2]).ranks
    (2,)
    """

    def __init__(self, message: str, ranks: Iterable[int] = ()) -> None:
        super().__init__(message)
        self.ranks = tuple(sorted(ranks))


@documentation.without_quotes
@runtime_checkable
class Communicator(Protocol):
    """A fixed number of ranks that make the same calls in the same order.

    All methods but `here`, `abort` and `close` are collective: a call returns when the other ranks
    have made it, too. It raises `MissingRanksError` if they don't come within the communicator's
    time. Only bytes are moved, so a dtype that the transport doesn't know is no obstacle. One thread
    makes all calls.

    A rank whose own arguments are wrong raises TypeError or ValueError at once, and the other ranks
    wait for its call. If the ranks' calls or lengths differ, all of them raise the same
    `CommunicationError`, and the next call is as any other. After any other error in a call, every
    later call raises `CommunicationError`, since the ranks no longer know where the others are.

    Attributes
    ----------
    rank : int
        The number of this rank, from 0 to `size` - 1.
    size : int
        The number of ranks.

    Examples
    --------
    >>> import instep.mpi
    >>> class Alone:
    ...     rank, size = 0, 1
    ...     def allgather(self, record): return [bytes(record)]
    ...     def alltoallv(self, send, receive): receive[0][:] = send[0]
    ...     def allgatherv(self, mine, into): into[0][:] = mine
    ...     def split_by_host(self): return 0, 1
    ...     def here(self, seconds): return [0]
    ...     def abort(self, reason): raise SystemExit(reason)
    ...     def close(self): pass
    >>> isinstance(Alone(), instep.mpi.Communicator)
    True
    """

    @property
    def rank(self) -> int:
        """The number of this rank, from 0 to `size` - 1."""

    @property
    def size(self) -> int:
        """The number of ranks."""

    def allgather(self, record: bytes) -> list[bytes]:
        """Give every rank the records of all ranks, in the order of the ranks.

        Parameters
        ----------
        record
            This rank's, as long as every other rank's. This is the call for short records; up to 120
            bytes it is fastest.

        Raises
        ------
        CommunicationError
            On every rank, if the records' lengths differ.
        """

    def alltoallv(self, send: Sequence[Buffer], receive: Sequence[Buffer]) -> None:
        """Send each rank a piece of its own, and receive one from each.

        Parameters
        ----------
        send
            A buffer for each rank, in the order of the ranks; any of them may be empty. Pieces need
            not be of one array, and may have any size.
        receive
            A writable buffer for the piece of each rank, as long as what that rank sends. These
            buffers must not overlap one another or those of `send`.

        Raises
        ------
        CommunicationError
            On every rank, if a buffer's length is not the length of the piece that comes. No buffer
            of another rank's piece has changed then.
        """

    def allgatherv(self, mine: Buffer, into: Sequence[Buffer]) -> None:
        """Give every rank the pieces of all ranks, whose lengths every rank knows.

        Parameters
        ----------
        mine
            This rank's piece, perhaps empty. It may be the same memory as its place in `into`.
        into
            A writable buffer for each rank's piece, in the order of the ranks; they must not overlap.

        Raises
        ------
        CommunicationError
            On every rank, if the lengths of `into` are not the same on all ranks. No buffer of another
            rank's piece has changed then.
        """

    def split_by_host(self) -> tuple[int, int]:
        """Return this rank's number among the ranks of its host, and how many these are."""

    def here(self, seconds: float) -> list[int]:
        """Tell the other ranks that this one gives up waiting; return the ranks that say the same.

        A rank that waits in a call gives up, too, when it is told so. This rank is among those
        returned; a rank that is missing has ended, hangs, or computes on. No other call of this
        communicator may follow but `abort` and `close`.

        Parameters
        ----------
        seconds
            How long to wait for the answers.
        """

    def abort(self, reason: str) -> None:
        """End the job on all ranks, so that none waits for another; this doesn't return.

        Parameters
        ----------
        reason
            What is written to standard error.
        """

    def close(self) -> None:
        """Give back what the communicator holds of its transport; a second call does nothing."""
