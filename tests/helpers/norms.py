"""The norm of all gradients, in the order of docs/semantics.md, and what clipping and the guard make of it."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from formulas.sums import CHUNK, pairwise_tree, sum_of_squares


def root_and_exponent(gradients: Iterable[np.ndarray]) -> tuple[float, int]:
    """The norm of all gradients (in their T) together, as root * 2**exponent; the exponent is nearly always 0.

    No chunk spans two gradients. If squares of finite gradients overflow or vanish, the gradients
    are scaled by a power of two that brings the largest below 1.
    """
    flat = [g.ravel(order="C") for g in gradients]
    chunks = [g[i : i + CHUNK] for g in flat for i in range(0, len(g), CHUNK)]
    if not chunks:
        return 0.0, 0
    total = pairwise_tree(np.concatenate([sum_of_squares(chunk) for chunk in chunks]))[0]
    largest = max(float(np.max(np.abs(chunk), initial=0)) for chunk in chunks)
    if not math.isfinite(largest) or largest == 0 or 2.0**-960 <= total < math.inf:
        return math.sqrt(total), 0
    exponent = math.frexp(largest)[1]
    scaled = [np.ldexp(chunk.astype(np.float64), -exponent) for chunk in chunks]
    total = pairwise_tree(np.concatenate([sum_of_squares(chunk) for chunk in scaled]))[0]
    return math.sqrt(total), exponent


@np.errstate(all="ignore")
def norm(gradients: Iterable[np.ndarray]) -> float:
    """The norm of all gradients (in their T) together."""
    root, exponent = root_and_exponent(gradients)
    return ldexp(root, exponent)


def ldexp(x: float, exponent: int) -> float:
    """x * 2**exponent, rounded once; infinite if it is too large."""
    return float(np.ldexp(x, exponent))


@np.errstate(all="ignore")
def limited(
    gradients: Iterable[np.ndarray],
    limit: float | None,
    grad_scale: float,
    nonfinite: str,
) -> tuple[float | None, float | None, bool]:
    """The factor of the gradients, the norm, which is that of the gradients times grad_scale, and whether to skip."""
    gradients = list(gradients)
    guarded = nonfinite != "propagate"
    bad = guarded and not all(np.isfinite(g).all() for g in gradients)
    if bad and nonfinite == "raise":
        raise FloatingPointError  # and nothing has changed
    grad_norm = None
    if limit or guarded:
        root, exponent = root_and_exponent(gradients)
        root = grad_scale * root
        grad_norm = ldexp(root, exponent)
        if limit and grad_norm > limit:
            return grad_scale * ldexp(limit / root, -exponent), grad_norm, bad
    return None if grad_scale == 1 else grad_scale, grad_norm, bad
