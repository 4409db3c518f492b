"""clip_norm where squares of finite float64 gradients overflow or vanish: docs/semantics.md."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import CHUNK, LEVELS, numbers, rng_for, use_level
from norms import norm
from reference import Reference, assert_follows

import instep

# Powers of two: the largest there is, about the limits at which squares are lost, the smallest there is.
EXPONENTS = [1020, 900, 514, 505, 480, -470, -480, -485, -530, -900, -1030, -1073]


def far_out(shape: Any, exponent: int, *key: object) -> np.ndarray:
    return np.ldexp(numbers(rng_for(*key, exponent), shape, "f8", spread=1.0), exponent)


def exact_norm(grads: list[np.ndarray]) -> float:
    """Of numbers of any size: math.hypot scales, too."""
    return math.hypot(*(x for g in grads for x in g.ravel().tolist()))


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("exponent", EXPONENTS)
@pytest.mark.usefixtures("eager_threads")
def test_bits_of_norm_and_step(exponent: int, level: str) -> None:
    """At each level and number of threads, for any layout, beside ordinary gradients and absent ones."""
    use_level(level)
    start = {"a": np.ones((3, 5)), "b": np.ones(CHUNK + 7), "c": np.ones(3, "f4"), "d": np.ones(2)}
    for threads in (1, 3):
        instep.set_num_threads(threads)
        params = {name: p.copy() for name, p in start.items()}
        options: dict[str, Any] = {"lr": 0.1, "clip_norm": math.ldexp(1.5, max(exponent, -1073))}
        optimizer = instep.Adam(params, **options)
        reference = Reference("Adam", start, **options)
        for turn in range(3):
            grads: dict[str, Any] = {
                "a": far_out((5, 3), exponent, turn).T[:, ::-1],
                "b": np.repeat(far_out(CHUNK + 7, exponent, turn), 2)[::2],
                "c": None if exponent < 0 or turn == 1 else np.ones(3, "f4"),
                "d": None,
            }
            optimizer.step(grads)
            reference.step(grads)
            assert optimizer.grad_norm == reference.grad_norm
            assert_follows(optimizer, params, reference, f"{threads} threads, turn {turn}")


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_the_norm_is_as_exact_as_any(exponent: int) -> None:
    grads = [far_out(1000, exponent, "exact"), far_out((7, 3), exponent - 3, "exact")]
    optimizer = instep.SGD([np.zeros(1000), np.zeros((7, 3))], clip_norm=math.inf)
    optimizer.step(grads)
    wanted = exact_norm(grads)
    assert optimizer.grad_norm == pytest.approx(wanted, rel=1e-12, abs=5e-324)
    assert optimizer.grad_norm == norm(grads)


@pytest.mark.parametrize("exponent", EXPONENTS)
def test_gradients_are_scaled_down_to_the_limit(exponent: int) -> None:
    """In norm: what is left is neither all zero nor what it was."""
    w, limit = np.zeros(1000), math.ldexp(1.0, exponent)
    optimizer = instep.SGD(w, lr=1.0, clip_norm=limit)
    optimizer.step(far_out(1000, exponent, "down"))
    assert optimizer.grad_norm > limit
    assert exact_norm([w]) == pytest.approx(limit, rel=1e-9, abs=1e-321)


SURROUNDINGS: dict[str, dict[str, Any]] = {
    "grad_scale": {"grad_scale": 1 / 3},
    "a large grad_scale": {"grad_scale": 2.0**60},
    "a small grad_scale": {"grad_scale": 2.0**-60},
    "skip": {"nonfinite": "skip"},
    "raise": {"nonfinite": "raise"},
    "accumulated": {"batches": 2},
    "accumulated alone": {"batches": 2, "alone": True},
    "everything": {"batches": 1, "nonfinite": "skip", "grad_scale": 0.1},
}


@pytest.mark.parametrize("around", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize("exponent", EXPONENTS)
def test_with_what_else_a_step_does(exponent: int, around: dict[str, Any]) -> None:
    start = {"w": np.ones(40), "b": np.ones((4, 4)).T}
    params = {name: p.copy(order="K") for name, p in start.items()}
    options = {
        "clip_norm": math.ldexp(1.0, exponent),
        "nonfinite": around.get("nonfinite", "propagate"),
    }
    optimizer = instep.RMSprop(params, lr=0.1, **options)
    reference = Reference("RMSprop", start, lr=0.1, **options)

    def draw(turn: int) -> dict[str, np.ndarray]:
        return {name: far_out(p.shape, exponent, turn, name) for name, p in start.items()}

    for turn in range(3):
        for batch in range(around.get("batches", 0)):
            for each in (optimizer, reference):
                each.accumulate(draw(10 * turn + batch))
        grads = () if around.get("alone") else (draw(10 * turn + 9),)
        for each in (optimizer, reference):
            each.step(*grads, grad_scale=around.get("grad_scale", 1.0))
        assert optimizer.grad_norm == reference.grad_norm
        assert_follows(optimizer, params, reference)
    assert optimizer.skipped_steps == 0


BAD: dict[str, Callable[[np.ndarray], Any]] = {
    "infinite": lambda g: g.__setitem__(3, -math.inf),
    "NaN": lambda g: g.__setitem__(3, math.nan),
}


@pytest.mark.parametrize("spoil", BAD.values(), ids=BAD)
@pytest.mark.parametrize("nonfinite", ["propagate", "skip"])
def test_beside_what_is_not_finite_nothing_is_scaled(nonfinite: Any, spoil: Any) -> None:
    start = {"w": np.ones(40)}
    params = {"w": np.ones(40)}
    options: dict[str, Any] = {"lr": 0.1, "clip_norm": 1.0, "nonfinite": nonfinite}
    optimizer, reference = instep.SGD(params, **options), Reference("SGD", start, **options)
    grad = far_out(40, 1000, "bad")
    spoil(grad)
    optimizer.step({"w": grad})
    reference.step({"w": grad})
    assert optimizer.skipped_steps == reference.skipped_steps == (nonfinite == "skip")
    assert optimizer.grad_norm == reference.grad_norm or math.isnan(optimizer.grad_norm)
    assert_follows(optimizer, params, reference)


def test_gradients_of_nothing_but_zero() -> None:
    w = np.ones(3)
    optimizer = instep.SGD(w, lr=1.0, clip_norm=1e-300, nonfinite="skip")
    optimizer.step(np.zeros(3))
    assert (optimizer.grad_norm, optimizer.step_count) == (0.0, 1)
    optimizer.step(np.array([0.0, -0.0, 5e-324]))
    assert optimizer.grad_norm == 5e-324
    assert w.tolist() == [1.0] * 3
