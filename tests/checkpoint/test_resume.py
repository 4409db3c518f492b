"""A run that goes on from a checkpoint equals the uninterrupted one: from every step, for every rule,
in every dtype, at any number of threads and any level, before and after."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, DTYPES, FEW, THREADS, Variant, fitting, labels, numbers
from snapshots import bits

import instep
from instep import checkpoint, schedules

pytest.importorskip("safetensors")

STEPS = 20
SKIPPED = 5  # the call whose gradients are not finite
# Of each dtype some that are small, and one of float32 large enough for threads to share.
SHAPES: dict[str, tuple[int, ...]] = {"matrix": (5, 7), "scalar": (), "empty": (0, 3), "row": (33,)}


def _gradients() -> list[list[dict[str, Any]]]:
    """For each step two micro-batches; a parameter now and then has no gradient in either."""
    rng = np.random.default_rng(41)
    steps = []
    for k in range(STEPS):
        batches = [{n: numbers(rng, p.shape, "f4") for n, p in fresh().items()} for _ in "12"]
        for batch in batches:
            if k % 4 == 2:
                batch["float16 row"] = batch["large"] = None
            if k == SKIPPED:
                batch["float64 matrix"][2, 3] = np.inf
        steps.append(batches)
    return steps


def fresh() -> dict[str, np.ndarray]:
    """Parameters of every dtype, some of them strided, filled with numbers that a load must replace."""
    params = {"large": np.full(2 * CHUNK + 5, 9.0, np.float32)}
    for dtype in DTYPES:
        params |= {f"{dtype} {name}": np.full(shape, 9.0, dtype) for name, shape in SHAPES.items()}
        params[f"{dtype} strided"] = np.full((6, 10), 9.0, dtype)[::-2, 1::3]
    return params


GRADIENTS = _gradients()


def go_on(optimizer: Any, scaler: instep.LossScaler, first: int, rhythm: int) -> Any:
    """Steps from first on, each at another level and number of threads than the one before."""
    levels = instep.isa_levels()
    for k in range(first, STEPS):
        instep.set_isa(levels[(k + rhythm) % len(levels)])
        instep.set_num_threads(THREADS[(k + rhythm) % len(THREADS)])
        early, late = GRADIENTS[k]
        if k % 3 == 1:
            optimizer.accumulate(early)
        yield k
        scaler.step(optimizer, late)


@pytest.mark.parametrize("variant", FEW, ids=labels)
@pytest.mark.usefixtures("eager_threads")
def test_from_every_step(variant: Variant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # durability has tests of its own
    more: dict[str, Any] = {"ema_decay": 0.75, "nonfinite": "skip", "clip_norm": 50.0}
    if FEW.index(variant) % 2:
        more["state_dtype"] = BFLOAT16

    def made(lr: Any = 0.5) -> Any:
        return variant.make(fresh(), lr=lr, **fitting(variant, more, *DTYPES))

    rng = np.random.default_rng(42)
    whole = made(schedules.Warmup(schedules.CosineDecay(0.1, steps=STEPS), steps=3, init=0.01))
    for param in whole.params.values():
        param[...] = numbers(rng, param.shape, param.dtype)
    scaler = instep.LossScaler(scale=1.0, growth_interval=4)
    for k in go_on(whole, scaler, 0, rhythm=0):
        checkpoint.save(tmp_path / str(k), whole, extra=k, scaler=scaler)
    wanted = bits(whole, scaler)
    assert (whole.step_count, whole.skipped_steps) == (STEPS - 1, 1)

    # A third of the steps with each rule, another third with the next.
    for k in range(FEW.index(variant) % 3, STEPS, 3):
        resumed, scaler = made(), instep.LossScaler()
        assert checkpoint.load(tmp_path / str(k), resumed, scaler) == k
        scaler.step(resumed, GRADIENTS[k][1])  # what was accumulated at this step was in the file
        for _ in go_on(resumed, scaler, k + 1, rhythm=1 + k // len(THREADS)):
            pass
        assert bits(resumed, scaler) == wanted, f"resumed at step {k}"
