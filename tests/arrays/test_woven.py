"""Parameters woven into each other, as the columns of a matrix are: told apart, at a cost for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference import assert_same_bits

import instep
from instep import _core

ROWS = 20


def columns(matrix: np.ndarray) -> list[np.ndarray]:
    return list(matrix.T)


def reversed_columns(matrix: np.ndarray) -> list[np.ndarray]:
    return [column[::-1] for column in matrix.T[::-1]]


def blocks_of_rows(matrix: np.ndarray) -> list[np.ndarray]:
    """Each with every third column only, in three kinds."""
    return [matrix[k : k + 4, c::3] for k in range(0, ROWS, 4) for c in range(3)]


def tiles(matrix: np.ndarray) -> list[np.ndarray]:
    return [
        matrix[k : k + 4, c : c + 2]
        for k in range(0, ROWS, 4)
        for c in range(0, matrix.shape[1], 2)
    ]


def transposed_tiles(matrix: np.ndarray) -> list[np.ndarray]:
    return [tile.T[::-1, ::-1] for tile in tiles(matrix)]


LAYOUTS: list[Callable[[np.ndarray], list[np.ndarray]]] = [
    columns,
    reversed_columns,
    blocks_of_rows,
    tiles,
    transposed_tiles,
]
layouts = pytest.mark.parametrize("layout", LAYOUTS, ids=lambda f: f.__name__)


def work_of(action: Callable[[], Any]) -> int:
    before = _core.testing.overlap_work()
    action()
    return _core.testing.overlap_work() - before


def made(layout: Any, width: int) -> tuple[Any, np.ndarray, np.ndarray, list[np.ndarray]]:
    """Parameters of one matrix, gradients of another with the same layout."""
    weights, grads = np.zeros((ROWS, width)), np.ones((ROWS, width))
    return instep.SGD(layout(weights), lr=1.0), weights, grads, layout(grads)


@layouts
@pytest.mark.parametrize("width", [12, 400])
def test_are_stepped_to_the_bit(layout: Any, width: int) -> None:
    optimizer, weights, grads, parts = made(layout, width)
    grads[...] = np.random.default_rng(0).standard_normal(grads.shape)
    for turn in range(1, 3):
        optimizer.step(parts)
        assert_same_bits(weights, -grads if turn == 1 else -grads - grads)


@layouts
def test_work_grows_with_their_number(layout: Any) -> None:
    """Of making the optimizer, and of steps with gradients that lie within the parameters' memory or apart."""
    work = {}
    for width in (200, 400):
        optimizer, _, _, parts = made(layout, width)
        both = np.zeros((ROWS, 2 * width))
        within = layout(both[:, 1::2])
        work[width] = [
            work_of(lambda width=width: made(layout, width)),
            work_of(lambda optimizer=optimizer, parts=parts: optimizer.step(parts)),
            work_of(lambda both=both, within=within: instep.SGD(layout(both[:, ::2])).step(within)),
        ]
    for few, many in zip(work[200], work[400], strict=True):
        assert many <= 2.2 * few + 50, work


def test_four_thousand_columns_with_gradients_between_them() -> None:
    both = np.zeros((4, 8_000))
    params, grads = list(both[:, ::2].T), list(both[:, 1::2].T)
    both[:, 1::2] = 1.0

    def steps() -> None:
        optimizer = instep.SGD(params, lr=1.0)
        for _ in range(3):
            optimizer.step(grads)

    assert work_of(steps) <= 4_000 * 40
    assert (both[:, ::2] == -3.0).all()


@layouts
def test_one_shared_element_among_them_is_found(layout: Any) -> None:
    matrix = np.zeros((ROWS, 40))
    parts = layout(matrix)
    for k in (0, len(parts) // 2, len(parts) - 1):
        element = parts[k][(slice(-1, None),) * parts[k].ndim].reshape(1)
        with pytest.raises(
            ValueError,
            match=f"shares memory with parameter '{k}'|'{k}' must have memory of its own, got .* shares",
        ):
            instep.SGD([*parts, element])
        optimizer = instep.SGD(parts)
        others = [np.zeros(p.shape) for p in parts]
        others[0] = np.lib.stride_tricks.as_strided(element, parts[0].shape, (0,) * parts[0].ndim)
        with pytest.raises(
            ValueError,
            match=f"gradient of '0' must have memory of its own, got .* shares memory with parameter '{k}'",
        ):
            optimizer.step(others)


@pytest.mark.parametrize("own_counts", [False, True], ids=["one count", "each its own count"])
def test_preparing_a_step_looks_up_each_parameter_once(own_counts: bool) -> None:
    """Where parameters share a count of steps, and where each has its own."""
    work = {}
    for count in (150, 300):
        params = {str(k): np.zeros(1) for k in range(count)}
        optimizer = instep.Adam(params)
        if own_counts:
            state = optimizer.state_dict()
            state["steps"] = {name: int(name) for name in params}
            optimizer.load_state_dict(state)
        before = _core.testing.looked_up(optimizer._plan)
        optimizer.step({name: np.ones(1) for name in params})
        work[count] = _core.testing.looked_up(optimizer._plan) - before
        # Each is corrected by its own count, and all steps are of length lr then.
        wanted = [-0.001 * (1 - 0.9) / (1 - 0.9 ** (k + 1)) for k in range(count)]
        if not own_counts:
            assert {p[0] for p in params.values()} == {params["0"][0]}
        else:
            scale = [np.sqrt(0.001 / (1 - 0.999 ** (k + 1))) for k in range(count)]
            found = [p[0] for p in params.values()]
            assert np.allclose(found, np.divide(wanted, scale), rtol=1e-4)
    assert work[300] <= 2.1 * work[150]
    assert work[300] <= 300 * 12
