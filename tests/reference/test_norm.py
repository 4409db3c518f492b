"""The reference's norm, and clipping to it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from cases import DTYPES, rng_for
from formulas.sums import pairwise_tree
from norms import norm
from reference import Reference, assert_same_bits


def tree_by_hand(a):
    if not a:
        return 0.0
    while len(a) > 1:
        a = [a[i] + a[i + 1] if i + 1 < len(a) else a[i] for i in range(0, len(a), 2)]
    return a[0]


@pytest.mark.parametrize("n", range(34))
def test_pairwise_tree(n):
    a = rng_for("tree").standard_normal((n, 100))
    expected = [tree_by_hand([float(x) for x in column]) for column in a.T]
    assert not n or [pairwise_tree(column)[0] for column in a.T] == expected
    assert len(pairwise_tree(np.zeros(n))) == min(n, 1)


def norm_by_hand(gradients):
    sums = []
    for g in gradients:
        values = [float(x) for x in g.flat]
        for start in range(0, len(values), 16384):
            lanes = [0.0] * 16
            for i, x in enumerate(values[start : start + 16384]):
                lanes[i % 16] += x * x
            sums.append(tree_by_hand(lanes))
    return math.sqrt(tree_by_hand(sums))


SIZES = [0, 1, 2, 3, 15, 16, 17, 16383, 16384, 16385, 3 * 16384 + 5]


@pytest.mark.parametrize("sizes", [*([n] for n in SIZES), SIZES, [], [5, 0, 16390]], ids=str)
def test_norm_order(sizes):
    rng = rng_for("norm", sizes)
    gradients = [rng.standard_normal(n) for n in sizes]
    found = norm(iter(gradients))
    assert found == norm_by_hand(gradients)
    exact = math.sqrt(math.fsum(float(x) ** 2 for g in gradients for x in g))
    assert found == pytest.approx(exact, rel=1e-12)
    assert type(found) is float


def test_norm_takes_logical_order_and_doubles():
    g = rng_for("logical").standard_normal((300, 200)).astype(np.float32)
    expected = norm_by_hand([g])
    assert (
        norm([g]) == norm([np.asfortranarray(g)]) == norm([g[::-1, ::-1][::-1, ::-1]]) == expected
    )
    assert norm([np.full(1, 1e30, np.float32)]) == float(np.float32(1e30))


def test_clip_norm():
    params = {"a": np.zeros(2, np.float32), "skipped": np.ones(1), "b": np.zeros(1)}
    grads = {"b": np.array([12.0]), "a": np.array([3.0, 4.0]), "skipped": None}
    for limit, scale in ((6.5, 0.5), (13.0, 1.0), (14.0, 1.0), (0.13, 0.13 / 13)):
        r = Reference("SGD", params, lr=1, clip_norm=limit)
        r.step(grads)
        assert r.grad_norm == 13.0
        assert_same_bits(r.params["a"], -np.float32([3, 4]) * np.float32(scale), f"{limit}")
        assert_same_bits(r.params["b"], np.array([-12 * scale]), f"{limit}")
    r.step({"a": np.zeros(2), "skipped": None, "b": np.zeros(1)})
    assert r.grad_norm == 0.0
    r = Reference("SGD", params, clip_norm=lambda step: [1.0, None][step])
    r.step(grads)
    assert r.grad_norm == 13.0
    r.step(grads)
    assert r.grad_norm is None


def test_clip_norm_comes_before_clip_value():
    r = Reference("SGD", {"w": np.zeros(2)}, lr=1, clip_norm=2.5, clip_value=1.75)
    r.step({"w": np.array([3.0, 4.0])})
    assert r.params["w"].tolist() == [-1.5, -1.75]


def test_norm_is_of_gradients_in_the_type_of_their_parameter():
    tenth = np.array([0.1])
    for dtype in DTYPES:
        r = Reference("SGD", {"w": np.zeros(1, dtype)}, clip_norm=1)
        r.step({"w": tenth})
        assert r.grad_norm == (0.1 if dtype == np.float64 else float(np.float32(0.1)))


def test_clip_norm_with_infinite_and_nan_gradients():
    for bad, expected in ((np.inf, [np.nan, 0.0]), (np.nan, [np.nan, -2.0])):
        r = Reference("SGD", {"w": np.zeros(2)}, lr=1, clip_norm=1)
        r.step({"w": np.array([bad, 2.0])})
        np.testing.assert_array_equal(r.params["w"], expected)
