"""clip_norm: the norm's bits don't depend on threads or levels, and its value is exact to 1e-12."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, DTYPES, LEVELS, THREADS, labels, numbers, use_level
from norms import norm
from reference import Reference, assert_follows, assert_same_bits

import instep

SHAPES = [(3, 5), (0,), (), (CHUNK,), (CHUNK + 1,), (171, 240), (50_003,)]


def exact_norm(grads: list[np.ndarray]) -> float:
    return math.sqrt(math.fsum(x * x for g in grads for x in g.astype("f8").ravel().tolist()))


def measured_norm(grads: list[np.ndarray], dtype: Any = "f4") -> float:
    optimizer = instep.SGD([np.zeros(g.shape, dtype) for g in grads], clip_norm=math.inf)
    optimizer.step(grads)
    return optimizer.grad_norm


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_bits_and_value(dtype: Any, level: str) -> None:
    use_level(level)
    rng = np.random.default_rng(7)
    grads = [numbers(rng, shape, dtype) for shape in SHAPES]
    wanted = norm(g.astype("f8" if dtype == np.float64 else "f4") for g in grads)
    for threads in THREADS:
        instep.set_num_threads(threads)
        found = measured_norm(grads, dtype)
        assert found == wanted
        assert abs(found - exact_norm(grads)) <= 1e-12 * found


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_chunks_side_by_side(dtype: str, level: str) -> None:
    """From 512 chunks on a thread takes four and more at once, whose sums are made together."""
    use_level(level)
    rng = np.random.default_rng(11)
    sizes = [CHUNK * 265 + 5, 7, CHUNK * 4, CHUNK * 9, CHUNK * 250 - 3]
    assert sum(-(-size // CHUNK) for size in sizes) >= 4 * 128
    grads = [rng.standard_normal(size, dtype) for size in sizes]
    optimizer = instep.SGD([np.zeros(size, dtype) for size in sizes], clip_norm=math.inf)
    for absent in (None, 3):
        optimizer.step([None if k == absent else g for k, g in enumerate(grads)])
        assert optimizer.grad_norm == norm(g for k, g in enumerate(grads) if k != absent)


@pytest.mark.parametrize("size", [11, 37, 1000, CHUNK + 21])
def test_the_order_of_summation_over_many_draws(size: int) -> None:
    """One norm can be right by chance: the root rounds what another order changes."""
    rng = np.random.default_rng(9)
    optimizer = instep.SGD(np.zeros(size), clip_norm=math.inf)
    for _ in range(100):
        grad = rng.standard_normal(size)
        optimizer.step(grad)
        assert optimizer.grad_norm == norm([grad])


def test_a_million_elements_far_apart() -> None:
    rng = np.random.default_rng(8)
    grads = [numbers(rng, 1_000_000, "f8", spread=30.0)]
    found = measured_norm(grads, "f8")
    assert abs(found - exact_norm(grads)) <= 1e-12 * found


def test_gradients_are_rounded_to_the_parameters_arithmetic_first() -> None:
    grads = [np.full(3, 1 + 2.0**-30)]
    assert measured_norm(grads, "f4") == math.sqrt(3.0)
    assert measured_norm(grads, "f8") == math.sqrt(math.fsum([(1 + 2.0**-30) ** 2] * 3))


@pytest.mark.parametrize("factor", [0.5, 1.0, 2.0])
def test_the_limit_itself_is_no_clip(factor: float) -> None:
    """At or below the limit the line is left out: no multiplication, the bits of a step without it."""
    g = np.array([3.0, 4.0])
    w, plain = np.array([0.1, 0.2]), np.array([0.1, 0.2])
    instep.SGD(w, lr=0.1, clip_norm=5.0 * factor).step(g)
    instep.SGD(plain, lr=0.1).step(g if factor >= 1 else g * (5.0 * factor / 5.0))
    assert_same_bits(w, plain)


def test_one_norm_over_all_groups() -> None:
    a, b = np.zeros(1), np.zeros(1, "f4")
    optimizer = instep.SGD([{"params": a, "lr": 1.0}, {"params": b, "lr": 2.0}], clip_norm=1.0)
    optimizer.step([np.array([3.0]), np.array([4.0])])
    assert optimizer.grad_norm == 5.0
    assert a[0] == -3.0 * (1.0 / 5.0)
    assert b[0] == np.float32(-2.0) * (np.float32(4) * np.float32(1.0 / 5.0))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_norm_that_is_not_finite_follows_the_formula(bad: float) -> None:
    rng = np.random.default_rng(9)
    start = {"a": numbers(rng, 20, "f4"), "b": numbers(rng, 5, BFLOAT16)}
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.Adam(params, clip_norm=1.0)
    reference = Reference("Adam", start, clip_norm=1.0)
    grads = {name: numbers(rng, p.shape, "f4") for name, p in start.items()}
    grads["a"][3] = bad
    optimizer.step(grads)
    reference.step(grads)
    assert math.isnan(optimizer.grad_norm) == math.isnan(bad)
    assert_follows(optimizer, params, reference)


def test_a_scheduled_limit() -> None:
    rng = np.random.default_rng(10)
    start = {"w": numbers(rng, 100, "f4")}
    params = {"w": start["w"].copy()}
    optimizer = instep.SGD(params, lr=0.1, clip_norm=lambda t: 4.0 / (1 + t))
    reference = Reference("SGD", start, lr=0.1, clip_norm=lambda t: 4.0 / (1 + t))
    for _ in range(4):
        grads = {"w": numbers(rng, 100, "f4")}
        optimizer.step(grads)
        reference.step(grads)
    assert_same_bits(params["w"], reference.params["w"])


def test_the_limit_can_be_changed_between_steps() -> None:
    optimizer = instep.SGD(np.zeros(2), lr=1.0)
    assert optimizer.clip_norm is None
    assert optimizer.grad_norm is None
    optimizer.clip_norm = 0.5
    optimizer.step(np.array([3.0, 4.0]))
    assert optimizer.grad_norm == 5.0
    optimizer.clip_norm = None
    optimizer.step(np.array([3.0, 4.0]))
    assert optimizer.grad_norm is None
    with pytest.raises(ValueError, match=r"clip_norm must be .*, got -1\.0"):
        optimizer.clip_norm = -1.0


@pytest.mark.usefixtures("eager_threads")
def test_no_thread_goes_on_before_the_norm_is_whole() -> None:
    """The last chunks take far longer to read than the first ones, whose update has to wait for them."""
    instep.set_num_threads(2)
    near = [np.ones(CHUNK, "f4")] * 30
    far = np.ones((16 * CHUNK, 1024), "f2")[:, 0]
    params = [*(np.zeros(CHUNK, "f4") for _ in near), np.zeros(16 * CHUNK, "f4")]
    optimizer = instep.SGD(params, lr=1.0, clip_norm=1.0)
    scale = np.float32(1 / math.sqrt(46 * CHUNK))
    for _ in range(20):
        optimizer.step([*near, far])
        for param in params:
            assert (param == -scale).all()
            param[...] = 0
