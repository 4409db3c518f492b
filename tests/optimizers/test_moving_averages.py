"""Moving averages: swapped in and out, whatever happens to the arrays meanwhile."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16
from mixed_formats import check, gradients, start
from reference import Reference, assert_same_bits

import instep


def test_averaged_swaps_in_and_out() -> None:
    rng, first = start()
    optimizer = instep.SGD(first, lr=1.0, ema_decay=0.5)
    optimizer.step(gradients(rng))
    before = {name: p.copy() for name, p in optimizer.params.items()}
    with optimizer.averaged():
        for name, p in optimizer.params.items():
            assert_same_bits(p, optimizer.averages[name].astype(p.dtype), name)
        with pytest.raises(
            RuntimeError,
            match=r"step must come after the block of averaged\(\), where the parameters hold averages, got a call",
        ):
            optimizer.step(gradients(rng))
        with (
            pytest.raises(
                RuntimeError, match="must end before the next begins, got a block in a block"
            ),
            optimizer.averaged(),
        ):
            pass
    with pytest.raises(KeyError, match="from the body"), optimizer.averaged():
        raise KeyError("from the body")
    for name, p in optimizer.params.items():
        assert_same_bits(p, before[name], name)
    optimizer.step(gradients(rng))


def test_swapping_waits_for_a_step_on_another_thread() -> None:
    size = 20_000_000
    w = np.zeros(size, "f4")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.5)

    def step() -> None:
        with suppress(RuntimeError):  # refused, if it comes while the averages are in
            optimizer.step(np.ones(size, "f4"))

    thread = threading.Thread(target=step)
    thread.start()
    for _ in range(20):
        with optimizer.averaged():
            pass
        if not thread.is_alive():
            break
    thread.join()
    assert (w == -float(optimizer.step_count)).all()


def test_averages_too_large_for_their_parameter() -> None:
    """Rounded to infinity as in a step, without NumPy's warning, which may be an error, half-way."""
    w = np.zeros(2, "f2")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.25)
    optimizer.step(np.array([-1e5, 1.0]))
    assert w.tolist() == [math.inf, -1.0]
    with np.errstate(all="raise"), optimizer.averaged():
        assert w.tolist() == [math.inf, -0.75]
    assert w.tolist() == [math.inf, -1.0]
    optimizer.step(np.zeros(2))


CHANGES: list[tuple[str, Callable[[np.ndarray], Any], Callable[[np.ndarray], Any]]] = [
    ("read-only", lambda w: w.setflags(write=False), lambda w: w.setflags(write=True)),
    ("shape", lambda w: setattr(w, "shape", (2, 3, 1)), lambda w: setattr(w, "shape", (2, 3))),
    ("dtype", lambda w: setattr(w, "dtype", "i4"), lambda w: setattr(w, "dtype", "f4")),
]


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
@pytest.mark.parametrize(("change", "undo"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_the_weights_come_back_to_a_changed_array(change: Any, undo: Any) -> None:
    params = [np.zeros(4, "f4"), np.zeros((2, 6), "f4")[:, ::2], np.zeros(4, "f4")]
    optimizer = instep.SGD(params, lr=1.0, ema_decay=0.75)
    grads = [np.full(p.shape, -4.0) for p in params]
    optimizer.step(grads)
    with optimizer.averaged():
        assert [p.ravel()[0] for p in params] == [1.0] * 3
        change(params[1])
    undo(params[1])
    assert all((p == 4.0).all() for p in params)
    optimizer.step(grads)
    assert all((p == 8.0).all() for p in params)


def test_the_weights_of_an_array_of_other_memory_are_lost_but_no_others() -> None:
    params = [np.zeros(4), np.zeros(4), np.zeros(4)]
    optimizer = instep.SGD(params, lr=1.0, ema_decay=0.75)
    optimizer.step([np.full(4, -4.0)] * 3)
    with (
        pytest.raises(
            ValueError,
            match=r"parameter '1' must keep its memory inside .*, got .* has been resized or moved",
        ),
        optimizer.averaged(),
    ):
        params[1].__setstate__((1, (1,), params[1].dtype, False, bytes(8)))
    assert (params[0] == 4.0).all()
    assert (params[2] == 4.0).all()
    with (
        pytest.raises(
            ValueError,
            match=r"parameter '1' must .*, got .* has been reshaped or moved in memory since",
        ),
        optimizer.averaged(),
    ):
        pass


def test_without_averages() -> None:
    optimizer = instep.SGD(np.zeros(1))
    assert optimizer.averages == {}
    with (
        pytest.raises(ValueError, match=r"ema_decay must be .* for averages, got None"),
        optimizer.averaged(),
    ):
        pass
    for bad in (1.5, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"ema_decay must be a number in \[0, 1\], got "):
            instep.SGD(np.zeros(1), ema_decay=bad)


def test_averages_start_at_the_weights() -> None:
    w = np.array([1.5, -2.0], BFLOAT16)
    averages = instep.Adam({"w": w}, ema_decay=0.9).averages
    assert averages["w"].dtype == np.float32
    assert averages["w"].tolist() == [1.5, -2.0]


def test_averages_of_special_values() -> None:
    """The average of -0 becomes +0, which e - rate * (e - p) would not give."""
    first = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, 5e-324])
    w = first.copy()
    optimizer = instep.SGD(w, ema_decay=0.5)
    reference = Reference("SGD", {"0": first}, ema_decay=0.5)
    optimizer.step(np.zeros(w.size))
    reference.step({"0": np.zeros(w.size)})
    check(optimizer, reference)
    assert np.signbit(w[1])
    assert not np.signbit(optimizer.averages["0"][1])
