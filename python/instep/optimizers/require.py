"""A check of what functions beside the optimizers are given."""

from __future__ import annotations

from instep._support.wording import kind
from instep.optimizers.base import Optimizer

__all__ = ["require_optimizer"]


def require_optimizer(found: object, call: str) -> None:
    """Raise TypeError, with the call as it should be, where arguments have been swapped, say."""
    if not isinstance(found, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer of instep, got {kind(found)}; call {call}")
