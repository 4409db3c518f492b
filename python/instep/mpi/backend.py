"""What the communicators have in common: checks that all ranks make together, before any data moves."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

import numpy as np

from instep._support.boots import host_mark
from instep._support.wording import described, kind
from instep.mpi.protocol import Buffer, CommunicationError, MissingRanksError
from instep.optimizers.hyperparameters import Interval, as_float

__all__ = ["FRAME", "Backend", "Bytes"]

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Result = TypeVar("Result")

#: Length of what ranks gather before anything else: a head, and what fits of a record.
FRAME = 128
_HEAD = 8
_ROOM = FRAME - _HEAD
_ANSWERS = 1.0  # seconds that other ranks have to say that they are there
_SECONDS = Interval(0.0, low_open=True)

# What failed calls have begun, and its memory, which the transport may still write to: kept while the process lives.
_abandoned: list[Any] = []


class Backend(ABC):
    """A communicator over a transport that can swap frames and move bytes.

    Every call begins with frames. A frame says which call it belongs to and how long the record or
    the piece is, so ranks that disagree find out together, before any data moves, and get the same
    error. All of them then still are at the same call. No transport has to deal with lengths that differ:
    MPI may write beyond the shorter memory then, and gloo ends the process.
    """

    #: Errors of the transport, after which nothing can be said of what is on its way.
    _errors: tuple[type[Exception], ...] = ()
    #: Whether ranks that end leave by a last call then; not those who have told the others otherwise.
    leaves_at_exit = True
    #: Whether the other ranks can be asked if they are there: not before all have made their communicator.
    _can_ask = True

    def __init__(self, rank: int, size: int, timeout: float | None) -> None:
        if timeout is not None:
            timeout = as_float(timeout, _SECONDS, "timeout")
        self._rank, self._size, self._timeout = rank, size, timeout
        self._fault = ""
        self._call = ""
        self._calls = 0
        self._begun = 0.0
        self._pending: list[Any] = []  # what the call has begun

    @property
    def rank(self) -> int:
        """The number of this rank, from 0 to `size` - 1."""
        return self._rank

    @property
    def size(self) -> int:
        """The number of ranks."""
        return self._size

    @property
    def is_over(self) -> bool:
        """Whether the transport has ended, so that no rank can be told anything."""
        return False

    def allgather(self, record: bytes) -> list[bytes]:
        """Give every rank the records of all ranks, in the order of the ranks."""
        if not isinstance(record, (bytes, bytearray)):
            raise TypeError(f"allgather's record must be bytes, got {kind(record)}")
        length = len(record)
        head = _head(b"g", length)
        found = self._swapped("allgather", (head + record[:_ROOM]).ljust(FRAME, b"\0") * self._size)
        for frame in found:
            if frame[:_HEAD] != head:
                _disagree(found)
        if length <= _ROOM:
            return [frame[_HEAD : _HEAD + length] for frame in found]
        into = [np.empty(length, np.uint8) for _ in range(self._size)]
        self._pass_round(np.frombuffer(record, np.uint8), into)
        return [piece.tobytes() for piece in into]

    def alltoallv(self, send: Sequence[Buffer], receive: Sequence[Buffer]) -> None:
        """Send each rank a piece of its own, and receive one from each."""
        sent = self._pieces("alltoallv", "send", send)
        places = self._pieces("alltoallv", "receive", receive, writable=True)
        mine = self._rank
        if sent[mine].size != places[mine].size:
            raise ValueError(
                f"alltoallv's send[{mine}] and receive[{mine}], this rank's own, must have the same "
                f"length, got {sent[mine].size} and {places[mine].size} bytes"
            )
        heads = b"".join(_head(b"v", piece.size).ljust(FRAME, b"\0") for piece in sent)
        found = self._swapped("alltoallv", heads)
        if any(frame[:1] != b"v" for frame in found):
            _disagree(found)
        wrong = b""
        for rank, (frame, place) in enumerate(zip(found, places, strict=True)):
            if (length := _length(frame)) != place.size:
                wrong = b"%d %d %d" % (rank, length, place.size)
                break
        self._raise_together(wrong)
        self._move_all(sent, places)

    def allgatherv(self, mine: Buffer, into: Sequence[Buffer]) -> None:
        """Give every rank the pieces of all ranks, whose lengths every rank knows."""
        piece = _flat("allgatherv's mine", mine)
        places = self._pieces("allgatherv", "into", into, writable=True)
        if piece.size != places[self._rank].size:
            raise ValueError(
                f"allgatherv's into[{self._rank}] must have the {piece.size} bytes of mine, got "
                f"{places[self._rank].size}"
            )
        lengths = np.array([place.size for place in places], "<i8")
        frame = _head(b"p", 0) + hashlib.sha256(lengths.tobytes()).digest()
        found = self._swapped("allgatherv", frame.ljust(FRAME, b"\0") * self._size)
        if any(frame[:1] != b"p" for frame in found):
            _disagree(found)
        for rank, frame in enumerate(found):
            if frame != found[0]:
                raise CommunicationError(
                    "allgatherv's into must have the same lengths on all ranks; those of rank "
                    f"{rank} are not those of rank 0"
                )
        self._pass_round(piece, places)

    def split_by_host(self) -> tuple[int, int]:
        """Return this rank's number among the ranks of its host, and how many these are."""
        hosts = self.allgather(self._host())
        mine = [rank for rank, host in enumerate(hosts) if host == hosts[self._rank]]
        return mine.index(self._rank), len(mine)

    def here(self, seconds: float) -> list[int]:
        """Tell the other ranks that this one gives up waiting; return the ranks that say the same."""
        seconds = as_float(seconds, _SECONDS, "seconds")
        self._fault = self._fault or "this rank gave up"
        return sorted({self._rank, *self._answers(seconds)})

    @abstractmethod
    def abort(self, reason: str) -> None:
        """End the job on all ranks, so that none waits for another."""

    def close(self) -> None:
        """Give back what the communicator holds of its transport; a second call does nothing."""
        self._fault = self._fault or "it is closed"

    # What a transport has to do.

    @abstractmethod
    def _swap(self, frames: bytes) -> bytes:
        """Send each rank one of these frames, and return those that come, in the order of the ranks."""

    @abstractmethod
    def _move(self, send: Sequence[Bytes], receive: Sequence[Bytes]) -> None:
        """Move the pieces that are not empty; the rank's own is moved already."""

    @abstractmethod
    def _answers(self, seconds: float) -> set[int]:
        """Tell the others that this rank gives up; return those that have said the same by then."""

    # What the transports share.

    def _guarded(self, call: str, work: Callable[..., Result], *arguments: Any) -> Result:
        """Do a part of a call. After any error, an interrupt included, none can follow: ranks have parted."""
        if self._fault:
            raise CommunicationError(
                f"rank {self._rank} can't call {call} any more, since {self._fault}"
            )
        self._call = call
        self._calls += 1
        self._begun = time.monotonic()
        try:
            result = work(*arguments)
        except BaseException as error:
            self._fault = f"{call} ended with {kind(error)}: {error}"
            _abandoned.append(self._pending)
            if isinstance(error, self._errors):
                raise self._failure(error) from error
            raise
        self._pending.clear()
        return result

    def _failure(self, error: Exception) -> CommunicationError:
        """Say which error of the transport ended the call."""
        said = str(error).partition("\n")[0]
        return CommunicationError(f"rank {self._rank}: {self._call} failed: {said}")

    def _left(self) -> float:
        """Return how many more seconds the call may wait."""
        if self._timeout is None:
            return float("inf")
        return self._begun + self._timeout - time.monotonic()

    def _gave_up(self) -> MissingRanksError:
        """Ask who is there, and say who isn't."""
        if not self._can_ask:
            return MissingRanksError(
                f"not all ranks have come within the timeout of {self._timeout:g} s; make the Distributed, "
                "or the communicator, on all ranks"
            )
        waited = time.monotonic() - self._begun
        return self._missing(waited, set(range(self._size)) - set(self.here(_ANSWERS)))

    def _missing(self, waited: float, ranks: set[int]) -> MissingRanksError:
        text = f"rank {self._rank} of {self._size} waited {waited:.3g} s in {self._call}: "
        if ranks:
            names = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, sorted(ranks)))}"
            text += (
                f"no answer from {names}, ended, stuck or still computing; start again from the "
                "last checkpoint, with a longer timeout if it was computing"
            )
        else:
            text += (
                "all ranks answered, so one of them came later than the timeout, or another wait "
                "of theirs was in vain"
            )
        return MissingRanksError(text, ranks)

    def _swapped(self, call: str, frames: bytes) -> list[bytes]:
        found = self._guarded(call, self._swap, frames)
        return [found[k : k + FRAME] for k in range(0, len(found), FRAME)]

    def _raise_together(self, wrong: bytes) -> None:
        """Raise on all ranks if any of them was sent a piece of another length than it expects."""
        frame = (_head(b"w", len(wrong)) + wrong).ljust(FRAME, b"\0")
        for rank, other in enumerate(self._swapped("alltoallv", frame * self._size)):
            if length := _length(other):
                sender, coming, room = map(int, other[_HEAD : _HEAD + length].split())
                raise CommunicationError(
                    f"alltoallv's receive[{sender}] on rank {rank} must have the {coming} bytes that "
                    f"rank {sender} sends, got {room}"
                )

    def _pass_round(self, mine: Bytes, into: Sequence[Bytes]) -> None:
        self._move_all([mine] * self._size, into)

    def _move_all(self, send: Sequence[Bytes], receive: Sequence[Bytes]) -> None:
        mine, place = send[self._rank], receive[self._rank]
        if mine.ctypes.data != place.ctypes.data:
            np.copyto(place, mine)
        self._guarded(self._call, self._move, send, receive)

    def _pieces(
        self, call: str, name: str, pieces: Sequence[Buffer], writable: bool = False
    ) -> list[Bytes]:
        if not isinstance(pieces, (list, tuple)) or len(pieces) != self._size:
            raise ValueError(
                f"{call}'s {name} must be a list of {self._size} buffers, one for each rank, got "
                f"{described(pieces)}"
            )
        found = [_flat(f"{call}'s {name}[{k}]", piece) for k, piece in enumerate(pieces)]
        for k, piece in enumerate(found):
            if writable and piece.size and not piece.flags.writeable:
                raise ValueError(f"{call}'s {name}[{k}] must be writable, got a read-only buffer")
        return found

    def _host(self) -> bytes:
        """Return what only ranks on this host have: its name alone may be another host's, too."""
        return host_mark()


def _head(call: bytes, length: int) -> bytes:
    return call + length.to_bytes(_HEAD - 1, "little")


def _length(frame: bytes) -> int:
    return int.from_bytes(frame[1:_HEAD], "little")


def _disagree(frames: list[bytes]) -> NoReturn:
    """Raise what all ranks raise when they have made different calls."""
    calls = {b"v": "alltoallv", b"p": "allgatherv"}
    said = [calls.get(frame[:1]) or f"allgather of {_length(frame)} bytes" for frame in frames]
    other = next(k for k, text in enumerate(said) if text != said[0])
    raise CommunicationError(
        "all ranks must make the same call, with a record of the same length; "
        f"got {said[0]} on rank 0, {said[other]} on rank {other}"
    )


def _flat(who: str, buffer: Buffer) -> Bytes:
    """Return an array of bytes over a buffer's memory."""
    try:
        if isinstance(buffer, np.ndarray):  # also of a dtype that the buffer protocol doesn't know
            if not buffer.flags.c_contiguous or buffer.dtype.hasobject:
                raise TypeError
            return buffer.reshape(-1).view(np.uint8)
        view = memoryview(buffer)
        if not view.c_contiguous:
            raise TypeError
        return np.frombuffer(view, np.uint8) if view.nbytes else np.empty(0, np.uint8)
    except TypeError:
        raise TypeError(f"{who} must have contiguous memory of bytes, got {kind(buffer)}") from None
