"""Whether arrays share memory: told for any strides as looking at each byte tells it."""

from __future__ import annotations

import itertools
import math
import time
from typing import Any

import numpy as np
import pytest
from cases import DTYPES
from hypothesis import given
from hypothesis import strategies as st
from numpy.lib.stride_tricks import as_strided

import instep
from instep import _core

share_memory, overlaps_itself = _core.testing.share_memory, _core.testing.overlaps_itself
BUFFER = np.zeros(8192, np.uint8)


def reach(shape: tuple[int, ...], strides: list[int]) -> tuple[int, int]:
    """Bytes from the first element to the one furthest down, and up."""
    reaches = [(n - 1) * s for n, s in zip(shape, strides, strict=True) if n > 0]
    return -sum(min(r, 0) for r in reaches), sum(max(r, 0) for r in reaches)


@st.composite
def views(draw: Any) -> np.ndarray:
    """Any view of the buffer: broadcast, overlapping, woven, reversed, empty."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.lists(st.integers(0, 5), max_size=4).map(tuple))
    unit = draw(st.sampled_from([1, 1, 3, 16]))
    strides = [dtype.itemsize * unit * draw(st.integers(-9, 9)) for _ in shape]
    low, high = reach(shape, strides)
    if low + high + dtype.itemsize > BUFFER.nbytes:
        shape, strides = shape[:1], strides[:1]
        low, high = reach(shape, strides)
    room = (BUFFER.nbytes - low - high) // dtype.itemsize - 1  # elements that it can be moved by
    start = low + dtype.itemsize * draw(st.integers(0, min(40, room)))
    return np.ndarray(shape, dtype, BUFFER, start, strides)


def bytes_of(view: np.ndarray) -> list[int]:
    """Every byte of every element, as often as elements have it."""
    places = itertools.product(*map(range, view.shape))
    starts = (sum(i * s for i, s in zip(place, view.strides, strict=True)) for place in places)
    first = view.__array_interface__["data"][0]
    return [first + start + k for start in starts for k in range(view.itemsize)]


@given(a=views(), b=views())
def test_share_memory(a: np.ndarray, b: np.ndarray) -> None:
    wanted = not set(bytes_of(a)).isdisjoint(bytes_of(b))
    assert share_memory(a, b) == share_memory(b, a) == wanted
    assert np.shares_memory(a, b) == wanted


@given(view=views())
def test_overlaps_itself(view: np.ndarray) -> None:
    found = bytes_of(view)
    assert overlaps_itself(view) == (len(found) != len(set(found)))


@given(parts=st.lists(views(), min_size=2, max_size=4))
def test_an_optimizer_takes_arrays_that_are_apart(parts: list[np.ndarray]) -> None:
    """And refuses all others, each found by name."""
    every = [byte for part in parts for byte in bytes_of(part)]
    try:
        instep.SGD(parts)
    except ValueError as error:
        refusal = str(error)
    else:
        refusal = ""
    assert bool(refusal) == (len(every) != len(set(every)))
    assert not refusal or "shares memory with" in refusal or "overlaps itself" in refusal


# ---- strides that no memory has ------------------------------------------------------------------------

HUGE = [2**57 + 8, 2**61, 2**62, 2**63 - 8, -(2**62), -(2**63) + 8, -(2**63)]
NO_MEMORY: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    **{f"stride {stride}": ((2,), (stride,)) for stride in HUGE},
    **{f"strides {stride} and 8": ((3, 2), (stride, 8)) for stride in HUGE},
    "sums of strides": ((2, 2, 2), (2**61, 2**61, 2**61)),
    "products": ((2**40,), (2**40,)),
    "products below": ((2**40,), (-(2**40),)),
    "2^40 in one place": ((2**40,), (0,)),
    "2^40 that overlap": ((2**20, 2**20), (8, 8)),
    "2^40 that overlap oddly": ((2**20, 2**20), (24, 40)),
    "2^40 bytes apart": ((2**40, 2), (8, 16)),
}


@pytest.mark.parametrize(("shape", "strides"), NO_MEMORY.values(), ids=NO_MEMORY)
@pytest.mark.parametrize("role", ["parameter", "copy", "gradient", "state"])
def test_arrays_of_no_memory_are_refused_at_once(shape: Any, strides: Any, role: str) -> None:
    """By name, before anything is computed from where they would reach."""
    small = np.zeros(2, "f4" if role == "copy" else "f8")
    wild = as_strided(small, shape, strides)
    began = time.monotonic()
    if role == "parameter":
        with pytest.raises(
            ValueError,
            match=r"parameter '0' must have (all its elements .*, got strides that reach|separate .*, got .* overlaps)",
        ):
            instep.Adam([wild])
    elif role == "copy":
        with pytest.raises(
            ValueError,
            match=r"the copy of '0' must have (all its elements .*, got strides|"
            r"separate .*, got .* overlaps|shape .*, got )",
        ):
            instep.Adam(np.zeros((2,) * len(shape)), copy_to=wild)
    else:
        like = np.zeros(shape if math.prod(shape) <= 8 else (2,) * len(shape))
        optimizer = instep.Momentum(like, momentum=0.5)
        if role == "gradient":
            with pytest.raises(
                ValueError,
                match=r"gradient of '0' must have (all its elements .*, got strides|shape .*, got )",
            ):
                optimizer.step(wild)
        else:
            state = optimizer.state_dict()
            state["state"]["0"]["momentum_buffer"] = wild
            with pytest.raises(
                ValueError, match=r"state 'momentum_buffer' of '0' must have .*, got "
            ):
                optimizer.load_state_dict(state)
        assert optimizer.step_count == 0
    assert time.monotonic() - began < 5


def test_strides_of_axes_of_length_one_say_nothing() -> None:
    w = as_strided(np.zeros(3), (1, 3, 1), (2**62, 8, -(2**63)))
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(as_strided(np.ones(3), (1, 3, 1), (-(2**62), 8, 2**62)))
    assert w.ravel().tolist() == [-1.0] * 3


@pytest.mark.parametrize("shape", [(3, 0), (0, 3), (3, 0, 5)])
@pytest.mark.parametrize("stride", HUGE)
def test_strides_of_arrays_without_elements_say_nothing(shape: Any, stride: int) -> None:
    w = as_strided(np.zeros(3), shape, (stride,) * len(shape))
    optimizer = instep.Adam([w, np.zeros(2)], clip_norm=1.0, ema_decay=0.5)
    for _ in range(2):
        optimizer.accumulate(
            [as_strided(np.zeros(3), shape, (-8, *(stride,) * len(shape))[: len(shape)]), None]
        )
        optimizer.step([w.copy(), np.ones(2)])
    with optimizer.averaged():
        pass
    optimizer.load_state_dict(optimizer.state_dict())
    assert not share_memory(w, w)
    assert not overlaps_itself(w)


# ---- what a subclass or a dtype says of itself ------------------------------------------------------------


class Denying(np.ndarray):
    """Says that it shares memory with nothing."""

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return False


def test_a_subclass_is_not_asked_whether_it_shares_memory() -> None:
    base = np.zeros(6)
    with pytest.raises(ValueError, match="shares memory with parameter"):
        instep.SGD([base[:4], base[3:].view(Denying)])
    with pytest.raises(ValueError, match="overlaps itself"):
        instep.SGD(as_strided(base, (3, 3), (8, 8)).view(Denying))
    optimizer = instep.SGD([base[:3], np.zeros(3)], lr=1.0)
    with pytest.raises(
        ValueError,
        match=r"gradient of '1' must have memory of its own, got .* shares memory with parameter '0'",
    ):
        optimizer.step([None, base[:3].view(Denying)])


class bfloat16(np.void):
    """No number, but of two bytes and of that name."""


NAMED = {
    "a subclass of void": np.dtype((bfloat16, "V2")),
    "a structure": np.dtype((bfloat16, [("low", "u1"), ("high", "u1")])),
    "an integer": np.dtype("u2"),
}


@pytest.mark.parametrize("dtype", NAMED.values(), ids=NAMED)
@pytest.mark.parametrize("role", ["parameter", "gradient", "copy", "state_dtype"])
def test_a_dtype_that_is_only_called_bfloat16(dtype: Any, role: str) -> None:
    array, w = np.zeros(4, dtype), np.zeros(4, "f4")
    use = {
        "parameter": lambda: instep.SGD(array),
        "gradient": lambda: instep.SGD(w).step(array),
        "copy": lambda: instep.SGD(w, copy_to=array),
        "state_dtype": lambda: instep.Adam(w, state_dtype=dtype),
    }[role]
    with pytest.raises(TypeError, match=r"must have dtype .*, got|state_dtype must be .*, got"):
        use()
    assert not w.any()
    real = np.zeros(4, DTYPES[3])
    instep.SGD(real, lr=1.0).step(np.ones(4, DTYPES[3]))
    assert real.astype("f4").tolist() == [-1.0] * 4
