"""Narrower copies of the parameters: what they hold, and which arrays are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, numbers
from reference import assert_same_bits, store

import instep


def test_copies_may_have_gaps_and_another_layout() -> None:
    rng = np.random.default_rng(21)
    w = numbers(rng, (40, 30), "f4")
    whole = np.full((60, 80), 7, "f2")
    copy = whole[::2, ::2].T
    optimizer = instep.Adam(w, lr=0.1, copy_to=copy)
    assert_same_bits(copy, w.astype("f2"))
    optimizer.step(numbers(rng, (40, 30), "f4"))
    assert_same_bits(copy, w.astype("f2"))
    assert (whole[1::2] == 7).all()
    assert (whole[:, 1::2] == 7).all()


@pytest.mark.parametrize("how", ["state_dict", "checkpoint"])
def test_copies_hold_what_was_loaded(how: str, tmp_path: Path) -> None:
    w = np.array([1 + 2**-8 + 2**-30, 3.0])  # rounding it by way of float32 gives another bfloat16
    saved = instep.SGD({"w": w})
    copy = np.zeros(2, BFLOAT16)
    loaded = instep.SGD({"w": np.zeros(2)}, copy_to={"w": copy})
    if how == "state_dict":
        loaded.params["w"][...] = w
        loaded.load_state_dict(saved.state_dict())
    else:
        pytest.importorskip("safetensors")
        instep.checkpoint.save(tmp_path / "run", saved)
        instep.checkpoint.load(tmp_path / "run", loaded)
    assert_same_bits(copy, store(w, BFLOAT16))


@pytest.mark.parametrize("dtype", ["f2", BFLOAT16], ids=str)
def test_a_copy_follows_a_change_by_hand_at_the_next_step(dtype: Any) -> None:
    w, copy = np.full(3, 0.1, "f4"), np.zeros(3, dtype)
    optimizer = instep.SGD(w, lr=0.1, copy_to=copy)
    old = copy.copy()
    w[...] = 0.7
    assert_same_bits(copy, old)
    copy[...] = w
    assert_same_bits(copy, store(w, dtype))
    w[...] = 0.3
    optimizer.step(np.zeros(3))
    assert_same_bits(copy, store(w, dtype))


W, C = np.zeros((2, 2)), np.zeros((2, 2), "f2")
READ_ONLY = np.broadcast_to(np.float16(0), (2, 2))
BAD_COPIES: list[tuple[Any, Any, type[Exception], str]] = [
    (
        W,
        C[0],
        ValueError,
        r"the copy of '0' must have shape \(2, 2\), got \(2,\)",
    ),
    (
        W,
        READ_ONLY,
        ValueError,
        "the copy of '0' must be writeable, .*, got an array that is read-only",
    ),
    (
        W,
        C.astype("f8"),
        TypeError,
        "must have a narrower dtype than its parameter's float64, got float64",
    ),
    (W, C.astype("i4"), TypeError, "the copy of '0' must have dtype .*, got int32"),
    (W, [C], TypeError, "the copy of '0' must be .*NumPy array.*, got a list"),
    ([W], 1, ValueError, "copy_to must be a list or tuple of 1.*, got an int"),
    ([W], C, ValueError, "copy_to must be a list or tuple of 1.*, got an ndarray"),
    ([W], [C, C], ValueError, "copy_to must be a list or tuple of 1.*, got a list of 2"),
    (
        {"w": W},
        {"v": C},
        ValueError,
        r"copy_to must have the parameters' keys \(None.*; missing: 'w'; unknown: 'v'$",
    ),
    ({"w": W}, [C], ValueError, "copy_to must be a dict with the parameters' keys, got a list"),
    (
        [{"params": W}],
        C,
        ValueError,
        "copy_to must be a list of 1, with an entry for each parameter group, got an ndarray",
    ),
    (
        [W, W.copy()],
        [C, C],
        ValueError,
        r"the copy of '[01]' must have memory of its own, got .* shares memory with the copy of '[01]'",
    ),
]


@pytest.mark.parametrize(("params", "copies", "error", "message"), BAD_COPIES)
def test_bad_copies(params: Any, copies: Any, error: type[Exception], message: str) -> None:
    before = C.tobytes()
    with pytest.raises(error, match=message):
        instep.SGD(params, copy_to=copies)
    assert C.tobytes() == before


def test_a_gradient_in_a_copy() -> None:
    copy = np.zeros(3, "f2")
    optimizer = instep.SGD(np.zeros(3, "f4"), copy_to=copy)
    with pytest.raises(ValueError, match="shares memory with the copy of '0'"):
        optimizer.step(copy)
    copy.flags.writeable = False
    with pytest.raises(
        ValueError, match=r"the copy of '0' must .*, got .* has been made read-only"
    ):
        optimizer.step(np.ones(3))
