"""The bytes that a step moves, and the memory that a contestant holds for it: those of the optimizer that steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from peers.with_instep import optimizer_of
from task import Task

# What the sums of a rule read before its sweep: how many arrays of the parameter's dtype, which are the parameter and
# the gradient, and how many states.
SUMS = {"LAMB": (2, 2), "LARS": (2, 0), "Prodigy": (2, 2)}
CLIP_UPDATE = (1, 1)  # gradient and mean square
MOST_STREAMS = 5  # that the loop of the memory limit goes through together


def sums_of(task: Task) -> tuple[int, int] | None:
    """The arrays and states that the sums of the step read; None for a step without any."""
    return CLIP_UPDATE if task.settings.get("clip_update") else SUMS.get(task.rule)


SIDE = 64  # of a parameter that is large enough for 8-bit states


def state_bytes(task: Task) -> list[int]:
    """Bytes of an element of each state.

    A state that is one number a tensor counts for nothing, and so do the units of 8-bit states, a sixteenth of a byte.
    """
    optimizer = optimizer_of(task, [np.zeros((SIDE, SIDE), task.numpy_dtype)])
    each = [state.nbytes // SIDE**2 for state in optimizer.state["0"].values()]
    return [count for count in each if count]


def passes_of(task: Task) -> list[tuple[int, int]]:
    """Bytes an element that each pass over memory reads and, of these, writes too.

    Parameter and states are read and written, the gradient is read. Before, the gradient is read where its norm is
    wanted, and what the rule's sums need.
    """
    return list(_passes(task))


def _passes(task: Task) -> Iterator[tuple[int, int]]:
    param, states = task.numpy_dtype.itemsize, state_bytes(task)
    if task.clip_norm is not None:
        yield param, 0
    summed = sums_of(task)
    if summed is not None:
        arrays, count = summed
        yield arrays * param + sum(states[:count]), 0
    written = param + sum(states)
    yield written + param, written


def is_split(task: Task) -> bool:
    """Whether the memory limit makes two passes of one, over fewer arrays than the step has."""
    passes = passes_of(task)
    return len(in_streams(passes)[1]) > len(passes)


def memory_of(task: Task) -> int:
    """Bytes that a contestant holds for it, about."""
    return task.elements * (2 * task.numpy_dtype.itemsize + sum(state_bytes(task)))


def in_streams(passes: list[tuple[int, int]]) -> tuple[int, list[tuple[int, int]]]:
    """Bytes of an element of one stream, and the passes in such streams: as few and as wide as their bytes allow.

    A pass over more streams than go together is split into two of the same bytes.
    """
    width = math.gcd(*(count for one in passes for count in one))
    split: list[tuple[int, int]] = []
    for read, written in ((read // width, written // width) for read, written in passes):
        parts = -(-read // MOST_STREAMS)
        split += [((read + k) // parts, (written + k) // parts) for k in reversed(range(parts))]
    return width, split
