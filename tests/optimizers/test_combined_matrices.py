"""Combined with Muon, whose step runs NumPy's products in its middle, before anything of any optimizer is written."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import LEVELS, THREADS, numbers, rng_for, use_level
from combined_reference import assert_combined_follows, made
from snapshots import snapshot

import instep
from instep.optimizers.newton_schulz import NewtonSchulz

MATRICES = {
    "tall": (40, 9),
    "wide": (5, 33),
    "single": (1, 1),
    "empty": (0, 4),
    "large": (160, 130),
}
OTHERS: dict[str, Any] = {"scalar": (), "row": (30_000,), "cube": (2, 3, 4)}


def members(dtype: str = "f4") -> Any:
    def start(shapes: Any) -> dict[str, np.ndarray]:
        return {n: numbers(rng_for("matrices", n), shape, dtype) for n, shape in shapes.items()}

    return [
        ("AdamW", start(OTHERS), {"lr": 0.1}),
        ("Muon", start(MATRICES), {"lr": 0.05, "ns_steps": 3}),
        ("Muon", {"more": np.ones((3, 8))}, {"lr": lambda t: 0.1 / (1 + t), "nesterov": False}),
    ]


def grads(k: int) -> list[Any]:
    rng = rng_for("gradients of matrices", k)
    given: list[Any] = [
        {name: numbers(rng, shape, "f4") for name, shape in shapes.items()}
        for shapes in (OTHERS, MATRICES, {"more": (3, 8)})
    ]
    if k % 2:
        given[1]["wide"] = given[2]["more"] = None
    return given


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("clip_norm", [None, 0.5, math.inf])
@pytest.mark.usefixtures("eager_threads")
def test_bits(clip_norm: float | None, level: str) -> None:
    use_level(level)
    (_, reference), *_ = twins = [made(members(), clip_norm=clip_norm) for _ in THREADS[:3]]
    for step in range(4):
        reference.step(grads(step), 0.5)
        for threads, (combined, _) in zip(THREADS, twins, strict=False):
            instep.set_num_threads(threads)
            combined.step(grads(step), grad_scale=0.5)
            assert_combined_follows(combined, reference, f"{threads} threads, step {step}")


def in_the_products(monkeypatch: pytest.MonkeyPatch, action: Callable[[], Any], turn: int) -> None:
    """Run an action at the end of the products of one of the optimizers."""
    original, turns = NewtonSchulz.__call__, iter(range(9))

    def products(self: NewtonSchulz, matrices: Any) -> None:
        original(self, matrices)
        if next(turns) == turn:
            action()

    monkeypatch.setattr(NewtonSchulz, "__call__", products)


@pytest.mark.parametrize("error", [MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("turn", [0, 1])
def test_an_error_in_the_products_has_changed_nothing(
    error: type[BaseException], turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    combined, reference = made(members(), clip_norm=0.5)
    combined.step(grads(0))
    reference.step(grads(0))

    def fail() -> None:
        raise error

    with monkeypatch.context() as patched:
        in_the_products(patched, fail, turn)
        before = [snapshot(optimizer) for optimizer in combined.optimizers]
        with pytest.raises(error):
            combined.step(grads(2))
        assert [snapshot(optimizer) for optimizer in combined.optimizers] == before
    assert combined.step_count == 1
    combined.step(grads(2))
    reference.step(grads(2))
    assert_combined_follows(combined, reference)


@pytest.mark.parametrize("turn", [0, 1])
def test_a_save_in_the_products(turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sees all optimizers as they were before the step; what would change them is refused."""
    combined, _ = made(members(), clip_norm=0.5)
    combined.step(grads(0))
    before, found = combined.state_dict(), []

    def save() -> None:
        found.append(combined.state_dict())
        with pytest.raises(RuntimeError, match="in the middle of its own step"):
            combined.optimizers[0].step(dict.fromkeys(OTHERS))

    in_the_products(monkeypatch, save, turn)
    combined.step(grads(2))
    (state,) = found
    for key in ("step_count", "optimizers"):
        np.testing.assert_equal(state[key], before[key])


def test_a_guard_leaves_the_matrices(monkeypatch: pytest.MonkeyPatch) -> None:
    combined, reference = made(members(), nonfinite="skip")
    in_the_products(monkeypatch, lambda: pytest.fail("no product is needed"), 0)
    bad = grads(0)
    bad[0]["row"][7] = np.nan
    combined.step(bad)
    reference.step(bad)
    assert_combined_follows(combined, reference)
