"""Logistic regression on sparse rows, of which few columns matter: L1 regularisation finds them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

import instep
from instep import schedules

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

COLUMNS, ENTRIES, MATTER = 200, 10, 8


def data(rng: np.random.Generator, rows: int) -> tuple[Ints, Floats, Floats]:
    """Return, for each row, the columns that are not zero, their values, and the label."""
    columns = np.argsort(rng.random((rows, COLUMNS)), axis=1)[:, :ENTRIES]
    columns[:, :4] = np.argsort(rng.random((rows, MATTER)), axis=1)[:, :4]
    values = rng.standard_normal((rows, ENTRIES))
    weights = np.where(np.arange(COLUMNS) < MATTER, 4.0, 0.0)
    odds = 1 / (1 + np.exp(-(values * weights[columns]).sum(axis=1)))
    return columns, values, (rng.random(rows) < odds).astype(np.float64)


def batches(rng: np.random.Generator, rows: int, size: int) -> Iterator[Ints]:
    order = rng.permutation(rows)
    for first in range(0, rows, size):
        yield order[first : first + size]


def trained(l1: float) -> tuple[Floats, float]:
    """Return the weights, and the share of rows of another sample that they are right about."""
    rng = np.random.default_rng(2)
    columns, values, labels = data(rng, 2000)
    w, b = np.zeros(COLUMNS), np.zeros(1)
    groups: list[instep.typing.Group] = [{"params": w, "l1": l1}, {"params": b}]
    opt = instep.Adam(groups, lr=schedules.ExponentialDecay(0.1, rate=0.8, steps=40))
    for _ in range(20):
        for rows in batches(rng, len(labels), 50):
            z = (values[rows] * w[columns[rows]]).sum(axis=1) + b
            error = (1 / (1 + np.exp(-z)) - labels[rows]) / len(rows)
            gradient = np.zeros(COLUMNS)
            np.add.at(gradient, columns[rows], values[rows] * error[:, None])
            opt.step([gradient, error.sum(keepdims=True)])
    columns, values, labels = data(rng, 2000)
    right = ((values * w[columns]).sum(axis=1) + b > 0) == (labels > 0)
    return w, float(right.mean())


def main() -> None:
    for l1 in (0.0, 0.004):
        w, right = trained(l1)
        large = np.flatnonzero(abs(w) > 0.1)
        print(f"l1 {l1}, share right, weights above 0.1, of these matter:", end=" ")
        print(right, len(large), np.count_nonzero(large < MATTER))


if __name__ == "__main__":
    main()
