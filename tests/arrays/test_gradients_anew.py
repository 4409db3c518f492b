"""A gradient that lies like the last one takes a short way through the checks; here it must not be taken.

Every case first steps with a good gradient, so that its layout, dtype and place are known, and then
changes one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import numbers
from reference import Reference, assert_same_bits

import instep

SHAPE = (3, 5)


def _resized(g: np.ndarray) -> np.ndarray:
    g.resize((5, 3), refcheck=False)
    return g


def _retyped(g: np.ndarray) -> np.ndarray:
    return g.view("i4")


def _misaligned(g: np.ndarray) -> np.ndarray:
    return np.zeros(g.nbytes + 1, np.uint8)[1:].view(g.dtype).reshape(g.shape)


def _overlapping(_: np.ndarray, optimizer: instep.Optimizer) -> np.ndarray:
    return optimizer.params["0"]


def _state(_: np.ndarray, optimizer: instep.Optimizer) -> np.ndarray:
    return optimizer.state["0"]["exp_avg"]


def _average(_: np.ndarray, optimizer: instep.Optimizer) -> np.ndarray:
    return optimizer.averages["0"]


CHANGES: list[tuple[Callable[..., Any], type[Exception], str]] = [
    (_resized, ValueError, r"must have shape \(3, 5\), got \(5, 3\)"),
    (_retyped, TypeError, "must have dtype .*, got int32"),
    (_misaligned, ValueError, "is misaligned"),
    (np.ma.array, TypeError, "must be a plain NumPy array, got a Masked"),
    (lambda g: g.tolist(), TypeError, "must be .*, got a list"),
    (lambda g: g.astype(">f4"), TypeError, "must be in the machine's byte order, got >f4"),
    (lambda g: g[:, :4], ValueError, r"must have shape \(3, 5\), got \(3, 4\)"),
    (_overlapping, ValueError, "shares memory with parameter '0'"),
    (_state, ValueError, "shares memory with state 'exp_avg' of '0'"),
    (_average, ValueError, "shares memory with the average of '0'"),
]


@pytest.mark.parametrize(
    ("change", "error", "words"), CHANGES, ids=[words for _, _, words in CHANGES]
)
def test_what_has_become_bad_is_refused(
    change: Callable[..., Any], error: type[Exception], words: str
) -> None:
    rng = np.random.default_rng(5)
    p, g = numbers(rng, SHAPE, "f4"), numbers(rng, SHAPE, "f4")
    optimizer = instep.Adam(p, ema_decay=0.9)
    for _ in range(2):
        optimizer.step(g)
    bad = change(g, optimizer) if change in (_overlapping, _state, _average) else change(g)
    before = p.copy()
    with pytest.raises(error, match=words):
        optimizer.step(bad)
    assert_same_bits(p, before, "the parameter")
    assert optimizer.step_count == 2


def test_what_is_accumulated_becomes_the_optimizers_own() -> None:
    """A buffer that a gradient may not share is made between two steps."""
    p, g = np.ones(SHAPE, "f4"), np.ones(SHAPE, "f4")
    optimizer = instep.SGD(p)
    optimizer.step(g)
    optimizer.accumulate(g)
    with pytest.raises(ValueError, match="shares memory with the accumulated gradient of '0'"):
        optimizer.step(optimizer.accumulated["0"])


def test_every_layout_after_every_other() -> None:
    """Dtypes and strides alternate between steps, with and without accumulated gradients."""
    rng = np.random.default_rng(6)
    p = numbers(rng, SHAPE, "f4")
    optimizer = instep.Adam(p, clip_norm=0.5)
    reference = Reference("Adam", {"0": p.copy()}, clip_norm=0.5)
    wide = numbers(rng, (6, 10), "f4")
    forms: list[Callable[[], np.ndarray]] = [
        lambda: numbers(rng, SHAPE, "f4"),
        lambda: numbers(rng, SHAPE, "f4"),
        lambda: numbers(rng, SHAPE[::-1], "f4").T,
        lambda: numbers(rng, SHAPE, "f8"),
        lambda: wide[::2, ::-2],
        lambda: wide[::-2, ::2],
        lambda: numbers(rng, SHAPE, "f2"),
    ]
    for first in forms:
        for second in forms:
            for accumulated in (False, True):
                g, h = first(), second()
                optimizer.step(g)
                reference.step({"0": g})
                if accumulated:
                    optimizer.accumulate(g)
                    optimizer.step(h)
                    reference.step({"0": g.astype("f4") + h.astype("f4")})
                else:
                    optimizer.step(h)
                    reference.step({"0": h})
                assert_same_bits(p, reference.params["0"], "the parameter")
    optimizer.accumulate(g)
    optimizer.step()
    reference.step({"0": g})
    assert_same_bits(p, reference.params["0"], "the parameter, from accumulated gradients alone")
