"""What a step would take if it had only to move its bytes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import numpy.typing as npt

from instep import _core
from instep.bench.turns import pace, take_turns

__all__ = ["memory_limit"]

# Bytes of a stream that a thread takes at a time. As luck will have it a chunk is in the cache of the core that took it
# last, which may be another: shares that stay with their threads are preferred unless chunks gain clearly.
_CHUNK = 1 << 16
_CLEARLY = 1.05
_TRIAL = 0.05  # seconds to try each way in


def memory_limit(
    passes: Sequence[tuple[int, int]], stream_bytes: int, threads: int
) -> Callable[[], None]:
    """Return a call that moves the bytes of a step and computes next to nothing.

    Parameters
    ----------
    passes : sequence of pairs of int
        For each pass over memory, how many streams it reads, and how many of these it writes too: ``[(4, 3)]`` for
        Adam, whose parameter, two states and gradient are read, and all but the gradient written.
    stream_bytes : int
        Length of a stream.
    threads : int
        At most so many; fewer, or a fixed share for each, where a trial shows that to be faster. A limit has to be the
        limit.
    """
    count = max(read for read, _ in passes)
    streams = [_stream(stream_bytes, place) for place in range(count)]
    shares = [(1, max(1, stream_bytes))]
    if threads > 1:
        shares += [(threads, math.ceil(max(1, stream_bytes) / threads)), (threads, _CHUNK)]

    def call(used: int, chunk: int) -> None:
        for read, written in passes:
            _core.memory_limit(streams[:read], written, used, chunk)

    ways = [partial(call, *share) for share in shares]
    if len(passes) == 1:  # as short a call as there is
        (read, written), *_ = passes
        ways = [partial(_core.memory_limit, streams[:read], written, *share) for share in shares]
    trials = {str(k): partial(pace, way, _TRIAL / 10) for k, way in enumerate(ways)}
    times = take_turns(trials, seconds=_TRIAL * len(ways), least=7, most=15)
    medians = [statistics.median(times[str(k)]) for k in range(len(ways))]
    if threads > 1:
        medians[-1] *= _CLEARLY
    return ways[medians.index(min(medians))]


def _stream(size: int, place: int) -> npt.NDArray[np.uint8]:
    """Return an array on a cache line's boundary, as far into its page as no other place is.

    Where streams keep a distance of whole pages, a core takes the loads of one for what it has just stored to another.
    """
    room = np.ones(size + 4096, np.uint8)
    start = -room.ctypes.data % 64 + 9 * 64 * place
    return room[start : start + size]
