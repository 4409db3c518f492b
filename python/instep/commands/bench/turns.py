"""The timer: contestants take turns, and the medians count.

On a machine that does other things too, a time says little; a ratio of times taken in the same minute says much. So
nothing is measured to its end before the next: everyone has a turn, then everyone the next one.
"""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

__all__ = ["MOST", "keep_freed_memory", "pace", "ratio", "rounds", "take_turns", "turn_of"]

_LEAST, MOST = 7, 101  # rounds

# A call this long (seconds) counts alone. Well above what a step out of the caches takes: the first call after a rest
# can be half as long again as the next, and counted only where it is long, it would be the slow ones that are.
_LONG_CALL = 0.5

_LARGEST_KEPT = 31 << 20  # bytes; from 32 MiB on glibc always gives memory back


def keep_freed_memory() -> None:
    """Have freed memory kept for the next array, as in a program that has run for a while.

    glibc gives large blocks back to the system until larger ones have been freed. A NumPy expression would spend most
    of its time on page faults for its intermediate arrays, or not, by what was measured before it.
    """
    np.empty(_LARGEST_KEPT, np.uint8)  # freed at once


def pace(call: Callable[[], object], seconds: float) -> float:
    """Return the seconds that a call takes within one turn.

    The call is repeated for about `seconds`, after a quarter as long (one call at least) that isn't counted: by then
    the caches hold the contestant's arrays again, and its threads are awake.
    """
    timer = timeit.Timer(call)
    number, spent = 1, 0.0
    while True:
        took = timer.timeit(number)
        if number == 1 and took >= _LONG_CALL:
            return took
        spent += took
        if spent >= seconds / 4:
            break
        number *= 2
    number = max(1, round(number * seconds / took))
    return timer.timeit(number) / number


def turn_of(call: Callable[[], object]) -> Callable[[float], float]:
    """Return what takes a turn of so many seconds: `pace`, unless the contestant has a ``turn`` of its own."""
    own: Callable[[float], float] = getattr(call, "turn", partial(pace, call))
    return own


def take_turns(
    contestants: Mapping[str, Callable[[], float]],
    seconds: float,
    least: int = _LEAST,
    most: int = MOST,
) -> dict[str, list[float]]:
    """Let every contestant have a turn, then every one its next, and return what each turn returned.

    Parameters
    ----------
    contestants : mapping of str to callable
        Name and turn; a turn returns a time, e.g. ``lambda: pace(call, 0.005)``.
    seconds : float
        No new round begins later than this, once there have been `least`.
    least, most : int
        Rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in rounds(seconds, least, most):
        for name, turn in contestants.items():
            times[name].append(turn())
    return times


def rounds(seconds: float, least: int = _LEAST, most: int = MOST) -> Iterator[int]:
    """Count the rounds that begin within so many seconds: `least` of them at least, and at most so many."""
    end = time.perf_counter() + seconds
    for done in range(most):
        if done >= least and time.perf_counter() >= end:
            break
        yield done


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Return the median, over the rounds, of one contestant's time by another's in the same round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
