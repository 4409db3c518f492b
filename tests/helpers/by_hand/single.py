"""A number that rounds like float32, and what describes a rule worked by hand."""

from __future__ import annotations

import math
import struct
from typing import Any, NamedTuple


class Single(float):
    def __new__(cls, x):
        return super().__new__(cls, struct.unpack("f", struct.pack("f", x))[0])

    def __add__(self, other):
        return Single(float(self) + float(other))

    def __sub__(self, other):
        return Single(float(self) - float(other))

    def __mul__(self, other):
        return Single(float(self) * float(other))

    def __truediv__(self, other):
        return Single(float(self) / float(other))

    def __neg__(self):
        return Single(-float(self))


class ByHand(NamedTuple):
    update: Any
    options: dict[str, Any]  # of which each choice is worked
    numbers: dict[str, Any]  # that round differently in float32, and an epsilon that is felt
    steps: int = 3  # that show every case of the formula
    # For rules with sums: called with T, a list of (p, g, s) of all elements, the options and t; returns more options.
    sums: Any = None
    shape: tuple[int, ...] = (30,)


def tree(terms):
    """The sum of at most a chunk of doubles: 16 lanes, then pairs."""
    lanes = [0.0] * 16
    for i, term in enumerate(terms):
        lanes[i % 16] += float(term)
    while len(lanes) > 1:
        lanes = [a + b for a, b in zip(lanes[::2], lanes[1::2], strict=True)]
    return lanes[0]


def root(T, x):
    return T(math.sqrt(x))


def size(x):
    return -x if x < 0 else x


def sign(T, x):
    return T((x > 0) - (x < 0))


def corrected(beta, t):
    """What Adam's averages are divided by."""
    return 1 - math.pow(beta, t)


def decayed(T, p, o):
    """The line of decoupled weight decay."""
    return p * T(1 - o["lr"] * o["weight_decay"]) if o["weight_decay"] else p
