"""Sums in the order of docs/semantics.md: chunks of 16,384 elements in logical order, 16 lanes, trees."""

from __future__ import annotations

import numpy as np

CHUNK, LANES = 16_384, 16


def pairwise_tree(a: np.ndarray) -> np.ndarray:
    """Add neighbours until at most one number is left; an odd last number goes to the next round."""
    while len(a) > 1:
        pairs = len(a) // 2
        a = np.concatenate([a[0 : 2 * pairs : 2] + a[1::2], a[2 * pairs :]])
    return a


def sum_of_lanes(chunk: np.ndarray) -> np.ndarray:
    """16 lanes, element i in lane i % 16, each added in order; then the tree over the lanes."""
    x = np.zeros(-(-len(chunk) // LANES) * LANES)  # float64; the zeros added change no sum
    x[: len(chunk)] = chunk
    # accumulate is sequential
    return pairwise_tree(np.add.accumulate(x.reshape(-1, LANES), axis=0)[-1])


def sum_of_squares(chunk: np.ndarray) -> np.ndarray:
    """Square every element in double, and add up."""
    x = np.asarray(chunk).astype(np.float64)
    return sum_of_lanes(x * x)


def total(*tensors: np.ndarray) -> float:
    """The sum over a tensor, or over several, in double: one tree over the chunks of all."""
    flat = [np.asarray(terms).ravel(order="C").astype(np.float64) for terms in tensors]
    chunks = [x[i : i + CHUNK] for x in flat for i in range(0, len(x), CHUNK)]
    if not chunks:
        return 0.0
    return float(pairwise_tree(np.concatenate([sum_of_lanes(chunk) for chunk in chunks]))[0])


def total_of_squares(x: np.ndarray) -> float:
    """The sum of squares, each squared in double."""
    wide = np.asarray(x).astype(np.float64)
    return total(wide * wide)
