"""The matrix phase of a step: what `Muon` keeps of its first pass is made orthogonal before the sweep."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from instep.optimizers.containers import Array

__all__ = ["NewtonSchulz"]


class NewtonSchulz:
    """Newton-Schulz iterations by NumPy's matmul, in memory that is kept from step to step.

    The core calls this between two sweeps. Nothing of the optimizer has changed then, so an error or
    a Ctrl-C loses nothing.
    """

    __slots__ = ("_rooms",)

    def __init__(self) -> None:
        self._rooms: dict[np.dtype[Any], Array] = {}

    def __call__(self, matrices: Sequence[tuple[Array, float, Mapping[str, float]]]) -> None:
        """Replace each matrix, which comes with the sum of its squares and the rule's numbers.

        A matrix has no more rows than columns.
        """
        for dtype in {matrix.dtype for matrix, _, _ in matrices}:
            self._make_room(dtype, [m.shape for m, _, _ in matrices if m.dtype == dtype])
        with np.errstate(all="ignore"):
            for matrix, squares, numbers in matrices:
                self._orthogonalize(matrix, squares, numbers)

    def _make_room(self, dtype: np.dtype[Any], shapes: Sequence[tuple[int, ...]]) -> None:
        size = max(rows * (2 * rows + columns) for rows, columns in shapes)
        if dtype not in self._rooms or self._rooms[dtype].size < size:
            self._rooms[dtype] = np.empty(size, dtype)

    def _orthogonalize(self, x: Array, squares: float, numbers: Mapping[str, float]) -> None:
        of = x.dtype.type
        norm, eps = math.sqrt(squares), numbers["eps"]
        a, b, c = (of(numbers[f"ns_coefficient{k}"]) for k in (1, 2, 3))
        rows, columns = x.shape
        square, room = rows * rows, self._rooms[x.dtype]
        first = room[:square].reshape(rows, rows)
        second = room[square : 2 * square].reshape(rows, rows)
        third = room[2 * square : 2 * square + rows * columns].reshape(rows, columns)
        np.divide(x, of(eps if eps > norm else norm), out=x)  # a norm that is NaN stays
        for _ in range(int(numbers["ns_steps"])):
            np.matmul(x, x.T, out=first)
            np.matmul(first, first, out=second)
            np.multiply(b, first, out=first)
            np.multiply(c, second, out=second)
            np.add(first, second, out=second)
            np.matmul(second, x, out=third)
            np.multiply(a, x, out=x)
            np.add(x, third, out=x)
