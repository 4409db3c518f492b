"""Which elements of the parameters each rank owns: its states, its part of the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["CHUNK", "Parameter", "Stretch", "cut", "shard_bytes", "whole_on_all"]

#: Elements of a chunk: what sums and stretches are made of.
CHUNK = 16_384


class Parameter(NamedTuple):
    """What matters of a parameter for its distribution."""

    size: int  # elements
    weight: int  # bytes an element that its owner holds and moves
    is_whole: bool  # one rank must own all of it: its rule is for matrices


class Stretch(NamedTuple):
    """Elements of a parameter, whole chunks but for the last one, and the rank that owns them."""

    parameter: int
    rank: int
    begin: int
    end: int


def cut(parameters: Sequence[Parameter], ranks: int) -> list[list[Stretch]]:
    """Return for each parameter its stretches, from the first element to the last.

    The parameters are taken in order, and each rank gets a run of whole chunks. A chunk goes to
    the rank in whose share of all bytes its middle lies.
    """
    pieces = [_pieces(parameter) for parameter in parameters]
    weights = np.array([w for each in pieces for w in each], dtype=np.float64)
    ends = np.cumsum(weights)
    total = ends[-1] if len(ends) else 0.0
    middles = ends - weights / 2
    owners = np.minimum((middles * ranks / total).astype(np.int64) if total else 0, ranks - 1)
    owners = np.broadcast_to(owners, len(weights))
    first, found = 0, []
    for index, (parameter, own) in enumerate(zip(parameters, pieces, strict=True)):
        found.append(_stretches(index, parameter, owners[first : first + len(own)]))
        first += len(own)
    return found


def whole_on_all(parameters: Sequence[Parameter], rank: int) -> list[list[Stretch]]:
    """Return stretches for a rank that steps everything itself, as every rank does."""
    return [[Stretch(k, rank, 0, each.size)] for k, each in enumerate(parameters)]


def shard_bytes(stretches: Sequence[Sequence[Stretch]], items: Sequence[int], ranks: int) -> int:
    """Return the bytes of the parameters in the largest rank's shard."""
    most = [0] * ranks
    for each, item in zip(stretches, items, strict=True):
        for stretch in each:
            most[stretch.rank] += (stretch.end - stretch.begin) * item
    return max(most)


def _pieces(parameter: Parameter) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the weights of what can't be cut further; a parameter without elements has one piece."""
    if parameter.is_whole or parameter.size <= CHUNK:
        return np.array([float(parameter.size * parameter.weight)])
    count = -(-parameter.size // CHUNK)
    weights = np.full(count, float(CHUNK * parameter.weight))
    weights[-1] = (parameter.size - (count - 1) * CHUNK) * parameter.weight
    return weights


def _stretches(
    index: int, parameter: Parameter, owners: np.ndarray[tuple[int], np.dtype[np.int64]]
) -> list[Stretch]:
    if len(owners) == 1:
        return [Stretch(index, int(owners[0]), 0, parameter.size)]
    starts = [0, *(np.flatnonzero(np.diff(owners)) + 1)]
    ends = [*starts[1:], len(owners)]
    return [
        Stretch(index, int(owners[a]), int(a) * CHUNK, min(int(b) * CHUNK, parameter.size))
        for a, b in zip(starts, ends, strict=True)
    ]
