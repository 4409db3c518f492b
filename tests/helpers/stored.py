"""Optimizers whose states lie in files, beside plain optimizers that take the same steps."""

from __future__ import annotations

import tempfile
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cases import Variant
from interpreters import python
from reference import assert_same_bits


class Stored(Variant):
    """The same choice of options, with the states of each optimizer in a new folder."""

    def __init__(self, variant: Variant, folder: str | Path) -> None:
        super().__init__(variant.rule, variant.options, variant.label)
        self.folder = folder

    def make(self, params: Any, **more: Any) -> Any:
        return super().make(params, **more, state_storage=tempfile.mkdtemp(dir=self.folder))


def assert_same_optimizers(stored: Any, plain: Any) -> None:
    """Parameters, states, averages and counts of both have the same bits."""
    for kind in ("params", "averages", "accumulated"):
        ours, theirs = getattr(stored, kind), getattr(plain, kind)
        assert ours.keys() == theirs.keys()
        for name, array in theirs.items():
            assert_same_bits(ours[name], array, f"{kind}/{name}")
    for name, states in plain.state.items():
        assert stored.state[name].keys() == states.keys()
        for key, array in states.items():
            assert_same_bits(stored.state[name][key], array, f"{key}/{name}")
    assert stored.step_count == plain.step_count
    assert stored.skipped_steps == plain.skipped_steps
    assert stored._plan.steps == plain._plan.steps


class Pair:
    """A plain optimizer and one with stored states, for equal parameters."""

    def __init__(self, variant: Variant, params: Sequence[Any], folder: Any, **more: Any) -> None:
        self.plain = variant.make([p.copy(order="K") for p in params], **more)
        self.stored = Stored(variant, folder).make([p.copy(order="K") for p in params], **more)

    def step(self, grads: Sequence[Any] | None, **more: Any) -> None:
        given = () if grads is None else (list(grads),)
        for optimizer in (self.plain, self.stored):
            optimizer.step(*given, **more)

    def accumulate(self, grads: Sequence[Any]) -> None:
        for optimizer in (self.plain, self.stored):
            optimizer.accumulate(list(grads))

    def check(self) -> None:
        assert_same_optimizers(self.stored, self.plain)


def mixed(rng: np.random.Generator, shapes: Sequence[Any], dtypes: Sequence[Any]) -> list[Any]:
    """Numbers in these shapes, with each dtype in turn, every third array in Fortran's order."""
    arrays = []
    for k, shape in enumerate(shapes):
        array = rng.standard_normal(shape).astype(dtypes[k % len(dtypes)])
        arrays.append(np.asfortranarray(array) if k % 3 == 2 else array)
    return arrays


def output_of(code: str, folder: Path) -> str:
    """The output of a program that is given a folder and must end without an error."""
    done = python("-c", textwrap.dedent(code), folder)
    assert done.returncode == 0, done.stderr
    return done.stdout
