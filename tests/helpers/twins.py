"""An optimizer and its reference, taken through the same calls and compared bit by bit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from reference import assert_follows, assert_same_bits
from snapshots import snapshot
from strategies import Setup


class Twins:
    """The setup, the optimizer, and the reference."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.reference = setup.reference()
        self.params = {name: placed.view for name, placed in setup.params.items()}
        self.copies = {name: c and c.view for name, c in setup.copies.items()}
        self.optimizer = setup.optimizer(self.params, self.copies)

    def step(self, grads: dict[str, Any] | None, scale: float = 1.0) -> None:
        """One step of both; without grads, with the accumulated gradients."""
        given = () if grads is None else (self.setup.contain(grads),)
        try:
            self.reference.step(grads, scale)
        except FloatingPointError:
            self.refused(FloatingPointError, *given, grad_scale=scale)
        else:
            self.optimizer.step(*given, grad_scale=scale)

    def refused(self, errors: Any, *given: Any, **more: Any) -> None:
        """A step that raises and changes nothing."""
        before = snapshot(self.optimizer)
        with pytest.raises(errors) as caught:
            self.optimizer.step(*given, **more)
        assert "\n" not in str(caught.value)
        assert snapshot(self.optimizer) == before

    def accumulate(self, grads: dict[str, Any]) -> None:
        self.optimizer.accumulate(self.setup.contain(grads))
        self.reference.accumulate(grads)

    def go_on_with(self, optimizer: Any) -> None:
        """Put a copy in the optimizer's place; the twins then have the copy's arrays."""
        assert type(optimizer) is type(self.optimizer)
        self.optimizer, self.params = optimizer, optimizer.params
        self.reference.grad_norm = None  # of the last step; the copy has taken none yet
        copies = itertools.chain.from_iterable(optimizer._held.copies)
        self.copies = dict(zip(optimizer.params, copies, strict=True))

    def check(self) -> None:
        """Check that all bits of both are the same, and that nothing was written between the elements."""
        optimizer, reference = self.optimizer, self.reference
        assert_follows(optimizer, self.params, reference)
        assert optimizer.accumulated.keys() == reference.accumulated.keys()
        for name, wanted in reference.accumulated.items():
            assert_same_bits(optimizer.accumulated[name], wanted, f"accumulated {name}")
        for name, copy in reference.copies.items():
            assert_same_bits(self.copies[name], copy, f"the copy of {name}")
        assert optimizer.step_count == reference.step_count
        assert optimizer.skipped_steps == reference.skipped_steps
        assert optimizer.state_dict()["steps"] == reference.steps
        assert same_number(optimizer.grad_norm, reference.grad_norm)
        for placed in (*self.setup.params.values(), *self.setup.copies.values()):
            if placed is not None:
                placed.check()


def same_number(a: float | None, b: float | None) -> bool:
    """Equal, or both NaN, or both None."""
    return a == b or (a is not None and b is not None and math.isnan(a) and math.isnan(b))
