"""The time of a step that only moves its bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from instep import _core
from instep.commands.bench.turns import pace

__all__ = ["MemoryLimit", "stream_arrays"]

Arrays = list[npt.NDArray[Any]]

# Bytes of a stream that a thread takes at a time, if it takes more than one share.
_CHUNK = 1 << 20
_BEATEN = 1.25  # times the fastest way's time: a way this slow will not be the fastest
_SURE = 3  # turns until a slow way is dropped


class MemoryLimit:
    """A contestant that moves the bytes of a step and computes next to nothing.

    There are three ways to move the bytes: on one thread, on all threads with a fixed share each, or on all threads by
    chunks. The fastest way depends on the machine, the size and the time. So each way takes part in every turn, and the
    way that has been fastest so far counts.

    Parameters
    ----------
    passes : sequence of pairs of int
        For each pass over memory, how many streams it reads, and how many of these it writes, too. Adam has
        ``[(4, 3)]``: it reads the parameter, two states and the gradient, and writes all but the gradient. The first
        streams are written, the last streams are only read: ``(1, 0)`` reads the gradient, as the norm does.
    pieces : list of lists of arrays
        The arrays of the streams. Each piece has one array for each stream, all with the same number of bytes, without
        gaps, and not overlapping. With `copied` it has one more array, with half as many bytes. The arrays keep their
        values, except the copy.
    threads : int
        At most so many threads.
    copied : bool, default False
        Whether the last pass also writes half a stream, past the caches: a copy in half the width.

    Raises
    ------
    TypeError, ValueError
        If passes or pieces are not as described.

    Examples
    --------
    >>> passes = [(4, 3)]
    >>> limit = MemoryLimit(passes, [stream_arrays(passes, 4000)], threads=2)
    >>> limit()
    >>> limit.turn(0.001) < 1
    True
    """

    def __init__(
        self,
        passes: Sequence[tuple[int, int]],
        pieces: list[Arrays],
        threads: int,
        *,
        copied: bool = False,
    ) -> None:
        move = _core.testing.make_memory_traffic(pieces, passes, copied).move
        stream_bytes = max(1, sum(piece[0].nbytes for piece in pieces))
        shares = {(1, stream_bytes)}
        if threads > 1:
            shares.add((threads, math.ceil(stream_bytes / threads)))
        if threads > 1 and stream_bytes > threads * _CHUNK:
            shares.add((threads, _CHUNK))
        self._ways: list[Callable[..., object]] = [
            partial(move, *share) for share in sorted(shares)
        ]
        self._on_all = self._ways[-1]
        self._times: list[list[float]] = [[] for _ in self._ways]

    def __call__(self, gradients: Arrays | None = None) -> None:
        """Move the bytes once, on all threads with a fixed share each.

        `gradients` replace the last arrays of the pieces, in this call only.
        """
        self._on_all(gradients)

    def turn(self, seconds: float, gradients: Arrays | None = None) -> float:
        """Return the time, in this turn, of the way that has been fastest so far."""
        for way, times in zip(self._ways, self._times, strict=True):
            times.append(pace(partial(way, gradients), seconds))
        medians = [statistics.median(times) for times in self._times]
        fastest = min(medians)
        took = self._times[medians.index(fastest)][-1]
        if len(self._times[0]) == _SURE:
            left = [k for k, median in enumerate(medians) if median < _BEATEN * fastest]
            self._ways = [self._ways[k] for k in left]
            self._times = [self._times[k] for k in left]
        return took


def stream_arrays(
    passes: Sequence[tuple[int, int]], size: int, *, copied: bool = False
) -> list[npt.NDArray[np.uint8]]:
    """Return arrays of so many bytes for the passes, and with `copied` one of half as many bytes."""
    count = max(read for read, _ in passes)
    found = [_stream(size, place) for place in range(count)]
    return [*found, _stream(size // 2, count)] if copied else found


def _stream(size: int, place: int) -> npt.NDArray[np.uint8]:
    """Return an array that begins on a cache line, at an offset within its page that no other stream has.

    If the distance of two streams is a whole number of pages, a core assumes that loads of one depend on stores to the
    other.
    """
    room = np.ones(size + 4096, np.uint8)
    start = (9 * 64 * place - room.ctypes.data) % 4096
    return room[start : start + size]
