"""Several references, stepped as one: one norm over the gradients of all, one guard, one factor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from norms import limited
from reference import Reference, assert_follows, assert_same_bits, at
from twins import same_number

import instep

Grads = Sequence["Mapping[str, np.ndarray | None]"]


class CombinedReference:
    """The references of a Combined, and what it counts."""

    def __init__(
        self, *references: Reference, clip_norm: Any = None, nonfinite: str = "propagate"
    ) -> None:
        self.references = references
        self.clip_norm, self.nonfinite = clip_norm, nonfinite
        self.step_count = self.skipped_steps = 0
        self.grad_norm: float | None = None

    def accumulate(self, grads: Grads) -> None:
        for reference, own in zip(self.references, grads, strict=True):
            reference.accumulate(own)

    def step(self, grads: Grads | None = None, grad_scale: float = 1.0) -> None:
        given = [None] * len(self.references) if grads is None else grads
        present = [r.present(own) for r, own in zip(self.references, given, strict=True)]
        limit = at(self.clip_norm, self.step_count)
        gradients = (g for own in present for g in own.values())
        scale, self.grad_norm, bad = limited(gradients, limit, grad_scale, self.nonfinite)
        for reference, own in zip(self.references, present, strict=True):
            reference.accumulated = {}
            if not bad:
                reference.update(own, scale)
        self.skipped_steps += bad
        self.step_count += not bad


def assert_combined_follows(
    combined: instep.Combined, reference: CombinedReference, what: str = ""
) -> None:
    """Everything of a Combined and its optimizers has the bits of the references."""
    assert same_number(combined.grad_norm, reference.grad_norm), what
    assert combined.step_count == reference.step_count, what
    assert combined.skipped_steps == reference.skipped_steps, what
    pairs = zip(combined.optimizers, reference.references, strict=True)
    for k, (optimizer, own) in enumerate(pairs):
        assert_follows(optimizer, optimizer.params, own, f"of {k} {what}")
        assert optimizer.step_count == own.step_count, what
        assert optimizer.grad_norm is None
        assert optimizer._plan.steps == list(own.steps.values()), what
        assert optimizer.accumulated.keys() == own.accumulated.keys(), what
        for name, wanted in own.accumulated.items():
            assert_same_bits(optimizer.accumulated[name], wanted, f"accumulated {name} {what}")


def made(
    members: Sequence[tuple[str, Mapping[str, np.ndarray], Mapping[str, Any]]], **limits: Any
) -> tuple[instep.Combined, CombinedReference]:
    """A Combined and its reference, of rules with their parameters, which are copied, and options."""
    optimizers = [
        getattr(instep, rule)({name: p.copy() for name, p in params.items()}, **options)
        for rule, params, options in members
    ]
    references = [Reference(rule, params, **options) for rule, params, options in members]
    return instep.Combined(*optimizers, **limits), CombinedReference(*references, **limits)
