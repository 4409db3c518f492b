"""The timer: contestants take turns, and the medians count.

On a machine with other programs, a time alone says little; a ratio of two times of the same minute says much. So
contestants are not measured one after the other: in each round, every contestant has a turn.
"""

from __future__ import annotations

import statistics
import time
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

__all__ = ["LEAST", "MOST", "keep_freed_memory", "pace", "ratio", "rounds", "take_turns", "turn_of"]

LEAST, MOST = 7, 101  # rounds

# A call this long (seconds) counts as a turn by itself. This is well above the time of a step beyond the caches: the
# first call after a pause can take half as long again as the next, and with a lower limit, only the slow first calls
# would count.
_LONG_CALL = 0.5

_LARGEST_KEPT = 31 << 20  # bytes; from 32 MiB on glibc always gives memory back


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next array, as in a program that has run for a while.

    glibc gives large blocks back to the system until larger ones have been freed. So a NumPy expression might spend
    most of its time on page faults for its intermediate arrays, or not, depending on the measurement before it.
    """
    np.empty(_LARGEST_KEPT, np.uint8)  # freed at once


def pace(call: Callable[[], object], seconds: float) -> float:
    """Return the seconds that a call takes within one turn.

    The call is repeated for about `seconds`. Before that, it is repeated for a quarter of this time (one call at
    least), which isn't counted: then the caches hold the contestant's arrays again, and its threads are awake.
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
    """Return the function that takes a turn of so many seconds: the contestant's own ``turn``, or `pace`."""
    own: Callable[[float], float] = getattr(call, "turn", partial(pace, call))
    return own


def take_turns(
    contestants: Mapping[str, Callable[[], float]],
    seconds: float,
    least: int = LEAST,
    most: int = MOST,
) -> dict[str, list[float]]:
    """Let all contestants take turns, round by round, and return the results of each contestant's turns.

    Parameters
    ----------
    contestants : mapping of str to callable
        Name and turn; a turn returns a time, e.g. ``lambda: pace(call, 0.005)``.
    seconds : float
        After `least` rounds, no new round begins later than this.
    least, most : int
        Rounds.
    """
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in rounds(seconds, least, most):
        for name, turn in contestants.items():
            times[name].append(turn())
    return times


def rounds(seconds: float, least: int = LEAST, most: int = MOST) -> Iterator[int]:
    """Count the rounds that begin within so many seconds: at least `least`, and at most `most`."""
    end = time.perf_counter() + seconds
    for done in range(most):
        if done >= least and time.perf_counter() >= end:
            break
        yield done


def ratio(numerator: Sequence[float], denominator: Sequence[float]) -> float:
    """Return the median, over the rounds, of one contestant's time by another's in the same round."""
    return statistics.median(a / b for a, b in zip(numerator, denominator, strict=True))
