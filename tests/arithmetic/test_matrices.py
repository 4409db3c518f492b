"""Rules of matrices equal the reference bit by bit, products included: both call NumPy's matmul on equal arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    DTYPES,
    LEVELS,
    MATRIX_VARIANTS,
    THREADS,
    Variant,
    labels,
    numbers,
    rng_for,
    use_level,
)
from reference import Reference, assert_follows

import instep

STEPS = 3
# Wide, tall, square, empty, around a vector.
SHAPES = [(3, 5), (5, 3), (0, 4), (4, 0), (1, 1), (1, 33), (33, 1), (17, 16), (9, 70), (70, 9)]


def start(dtype: Any, seed: object) -> dict[str, np.ndarray]:
    rng = rng_for("matrices", seed)
    return {str(shape): numbers(rng, shape, dtype) for shape in SHAPES}


def laid_out(array: np.ndarray, turn: int) -> np.ndarray:
    """A copy in C order, in Fortran order, with gaps, or backwards."""
    rows, columns = array.shape
    if turn % 4 == 0:
        return array.copy()
    if turn % 4 == 1:
        return np.array(array, order="F")
    room = np.zeros((2 * rows, 3 * columns), array.dtype)
    view = room[::2, ::3] if turn % 4 == 2 else room[:rows, :columns][::-1, ::-1]
    view[...] = array
    return view


def run(
    variant: Variant, dtype: Any, *, grad_dtype: Any = None, turn: int = 0, **more: Any
) -> None:
    params = {name: laid_out(p, turn + i) for i, (name, p) in enumerate(start(dtype, 0).items())}
    optimizer = variant.make(params, **more)
    reference = Reference(variant.rule.__name__, params, **{**variant.options, **more})
    for step in range(STEPS):
        grads: dict[str, Any] = start(grad_dtype or dtype, step + 1)
        for i, name in enumerate(grads):
            grads[name] = None if (i + step) % 7 == 5 else laid_out(grads[name], turn + i + step)
        optimizer.step(grads)
        reference.step(grads)
        assert_follows(optimizer, params, reference, f"at step {step}")


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("variant", MATRIX_VARIANTS, ids=labels)
def test_every_variant_at_every_level(variant: Variant, dtype: Any, level: str) -> None:
    use_level(level)
    run(variant, dtype, turn=LEVELS.index(level))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("variant", MATRIX_VARIANTS, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_every_thread_count(variant: Variant, threads: int) -> None:
    instep.set_num_threads(threads)
    run(variant, np.float32)


MORE: dict[str, dict[str, Any]] = {
    "clip_norm": {"clip_norm": 0.5},
    "skip": {"nonfinite": "skip"},
    "ema_decay": {"ema_decay": 0.9},
    "bfloat16 states": {"state_dtype": BFLOAT16},
    "float16 states": {"state_dtype": np.dtype("float16")},
    "float16 states, to nearest": {"state_dtype": np.dtype("float16"), "rounding": "nearest"},
}


@pytest.mark.parametrize("more", MORE.values(), ids=MORE)
@pytest.mark.parametrize("grad_dtype", DTYPES, ids=labels)
@pytest.mark.parametrize("dtype", DTYPES[:3], ids=labels)
def test_around_the_rule(dtype: Any, grad_dtype: Any, more: Any) -> None:
    run(MATRIX_VARIANTS[-2], dtype, grad_dtype=grad_dtype, turn=1, **more)


def test_more_than_a_chunk() -> None:
    for shape in ((130, 129), (60, 300)):
        w = {"w": numbers(rng_for(shape), shape, "f4")}
        optimizer, reference = instep.Muon(w, lr=0.1), Reference("Muon", w, lr=0.1)
        for step in range(2):
            grad = {"w": numbers(rng_for(step, shape), shape, "f4")}
            optimizer.step(grad)
            reference.step(grad)
            assert_follows(optimizer, w, reference)


def test_squares_that_overflow_are_scaled_for_the_norm_alone() -> None:
    w = {"w": np.ones((2, 3))}
    optimizer, reference = instep.Muon(w, clip_norm=1.0), Reference("Muon", w, clip_norm=1.0)
    grad = {"w": np.full((2, 3), 1e200)}
    optimizer.step(grad)
    reference.step(grad)
    assert_follows(optimizer, w, reference)


def test_accumulated_gradients_and_copies() -> None:
    w = {"w": numbers(rng_for("w"), (9, 4), "f4")}
    halves = {"w": np.zeros((9, 4), np.float16)}
    optimizer = instep.Muon(w, lr=0.1, copy_to=halves)
    reference = Reference("Muon", w, lr=0.1, copy_dtype=np.float16)
    for step in range(3):
        first, second = ({"w": numbers(rng_for(step, k), (9, 4), "f4")} for k in (1, 2))
        for each in (optimizer, reference):
            each.accumulate(first)
            if step:
                each.step(second, grad_scale=0.5)
            else:
                each.step(grad_scale=0.5)
        assert_follows(optimizer, w, reference)
        assert np.array_equal(halves["w"], reference.copies["w"])


@pytest.mark.parametrize("special", [np.nan, np.inf, 0.0])
def test_special_gradients(special: float) -> None:
    w = {"w": np.ones((3, 4)), "v": np.ones((2, 2))}
    optimizer, reference = instep.Muon(w), Reference("Muon", w)
    for _ in range(2):
        grads = {"w": np.full((3, 4), special), "v": np.array([[1.0, special], [2.0, 3.0]])}
        with np.errstate(all="raise"):
            optimizer.step(grads)
        reference.step(grads)
        assert_follows(optimizer, w, reference)
