"""The round with which every collective call begins: whether all ranks make the same call, without an error."""

from __future__ import annotations

import builtins
import hashlib
import json
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np

from instep.mpi.protocol import CommunicationError, Communicator

__all__ = [
    "NO_DIGESTS",
    "Kind",
    "Round",
    "agreed",
    "digest",
    "gather_any",
    "is_agreed",
    "meet",
    "raise_together",
    "tells_of_leaving",
]

_PROTOCOL = 1
#: 64 bytes: who speaks, the protocol, the kind of call, whether an error is known, the number of the job, the step
#: count, three digests.
_RECORD = struct.Struct("<2sHBBHq16s16s16s")
_MARK = b"is"
NO_DIGESTS = (bytes(16),) * 3


class Kind(IntEnum):
    """What a rank is about to do."""

    MAKE = 1
    STEP = 2
    SAVE = 3
    LOAD = 4
    STATE_DICT = 5
    LOAD_STATE_DICT = 6
    AVERAGED = 7
    LEAVE = 8
    RESET_REMAINDERS = 9


_CALLS = {
    Kind.MAKE: "make a Distributed",
    Kind.STEP: "call step",
    Kind.SAVE: "call save",
    Kind.LOAD: "call load",
    Kind.STATE_DICT: "call state_dict",
    Kind.LOAD_STATE_DICT: "call load_state_dict",
    Kind.AVERAGED: "enter averaged()",
    Kind.LEAVE: "leave",
    Kind.RESET_REMAINDERS: "call reset_remainders",
}


class Round(NamedTuple):
    """Which of the digests are the same on all ranks."""

    settings: bool
    prepared: bool
    presence: bool


def agreed(error: BaseException) -> BaseException:
    """Mark an error that all ranks raise at the same place: after it, they can go on together."""
    with suppress(AttributeError):  # of an exception without a dict
        error.agreed_by_ranks = True  # type: ignore[attr-defined]
    return error


def is_agreed(error: BaseException) -> bool:
    """Tell whether an error is one that all ranks raise at the same place."""
    return getattr(error, "agreed_by_ranks", False)


def tells_of_leaving(error: BaseException) -> bool:
    """Tell whether an error says that ranks have left, so that no call can follow."""
    return getattr(error, "ranks_left", False)


def digest(data: bytes) -> bytes:
    """Return the digest of bytes in a record."""
    return hashlib.blake2b(data, digest_size=16).digest()


def meet(
    comm: Communicator,
    kind: Kind,
    step: int,
    error: BaseException | None = None,
    digests: tuple[bytes, bytes, bytes] = NO_DIGESTS,
    job: int = 0,
) -> Round:
    """Make the round: return if all ranks make this call at this step, otherwise raise on all ranks.

    Raises
    ------
    BaseException
        The caller's own error; where another rank has one, its built-in class with the rank's number.
    CommunicationError
        If a rank has left, makes another call, is at another step, or is of another release.
    """
    own = _RECORD.pack(_MARK, _PROTOCOL, kind, error is not None, job, step, *digests)
    records = comm.allgather(own)
    if error is None and records.count(own) == len(records):  # nearly always
        return Round(True, True, True)
    found = [_RECORD.unpack(record) for record in records]
    try:
        _require_one_call(found)
    except CommunicationError as refusal:
        raise refusal from error
    if any(record[3] for record in found):
        raise_together(comm, error)
    _require_same(
        found,
        5,
        lambda k, a, b: (
            f"all ranks must be at the same step, got {a} completed steps on rank 0, "
            f"{b} on rank {k}; load the same checkpoint on all"
        ),
    )
    return Round(*(len({record[place] for record in found}) == 1 for place in (6, 7, 8)))


def _require_one_call(found: Sequence[tuple[Any, ...]]) -> None:
    _require_same(found, 0, _of_another_release)
    _require_same(found, 1, _of_another_release)
    _refuse_leaving(found)  # whoever leaves takes part in no further round
    _require_same(
        found,
        2,
        lambda k, a, b: (
            f"all ranks must make the same call, got {_call(a)} on rank 0, {_call(b)} on rank {k}; "
            "make each call on all ranks, save and load, too"
        ),
    )
    _require_same(
        found,
        4,
        lambda k, _a, _b: (
            f"all ranks must call the same Distributed, got another one on rank {k} than on rank 0; "
            "call those that share a communicator in the same order on all ranks"
        ),
    )


def raise_together(comm: Communicator, error: BaseException | None) -> None:
    """Raise on all ranks if any rank has an error: its own there, the same built-in class elsewhere."""
    own = [] if error is None else [_builtin(error).__name__, _text(error)]
    said = [json.loads(each) for each in gather_any(comm, json.dumps(own).encode())]
    if error is not None:
        raise agreed(error)
    for rank, each in enumerate(said):
        if each:
            name, text = each
            raise agreed(getattr(builtins, name)(f"rank {rank}: {text}"))


def gather_any(comm: Communicator, mine: bytes) -> list[bytes]:
    """Give every rank the bytes of all ranks, of any lengths."""
    lengths = [
        int.from_bytes(each, "little") for each in comm.allgather(len(mine).to_bytes(8, "little"))
    ]
    into = [np.empty(length, np.uint8) for length in lengths]
    comm.allgatherv(mine, into)
    return [each.tobytes() for each in into]


def _require_same(
    found: Sequence[tuple[object, ...]], place: int, text: Callable[[int, object, object], str]
) -> None:
    first = found[0][place]
    for rank, record in enumerate(found):
        if record[place] != first:
            raise agreed(CommunicationError(text(rank, first, record[place])))


def _of_another_release(rank: int, _first: object, _other: object) -> str:
    return f"all ranks must have the same release of instep, got another one on rank {rank} than on rank 0"


def _refuse_leaving(found: Sequence[tuple[object, ...]]) -> None:
    left = [rank for rank, record in enumerate(found) if record[2] == Kind.LEAVE]
    if not left or len(left) == len(found):
        return
    step = found[left[0]][5]
    stays = next(rank for rank, record in enumerate(found) if record[2] != Kind.LEAVE)
    if found[stays][2] == Kind.STEP:
        how = "the others go on; end the loop at the same step on all ranks"
    else:
        how = f"rank {stays} is to {_call(found[stays][2])}; make each call on all ranks"
    names = f"rank{'s' if len(left) > 1 else ''} {', '.join(map(str, left))}"
    error: Any = CommunicationError(
        f"{names} {'have' if len(left) > 1 else 'has'} left after step {step}, and {how}"
    )
    error.ranks_left = True
    raise agreed(error)


def _call(kind: object) -> str:
    return next((text for known, text in _CALLS.items() if known == kind), f"make call {kind}")


def _builtin(error: BaseException) -> type[BaseException]:
    """Return the built-in class that other ranks raise, one that takes a text alone."""
    if isinstance(error, KeyboardInterrupt):
        return KeyboardInterrupt
    for cls in type(error).__mro__:
        if cls.__module__ == "builtins" and issubclass(cls, Exception):
            try:
                cls("")
            except TypeError:  # such as UnicodeDecodeError
                continue
            return cls
    return RuntimeError  # SystemExit would end the other ranks as if all were well


def _text(error: BaseException) -> str:
    text = str(error).partition("\n")[0]
    notes = getattr(error, "__notes__", None) or []
    name = type(error).__name__
    told = text if _builtin(error) is type(error) and text else f"{name}: {text}" if text else name
    return "; ".join([told, *(str(note) for note in notes)])[:1000]
