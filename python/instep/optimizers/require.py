"""A check of an argument of functions that take an optimizer."""

from __future__ import annotations

from instep._support.wording import kind
from instep.optimizers.base import Optimizer
from instep.optimizers.combined import Combined

__all__ = ["require_optimizer", "require_optimizers"]


def require_optimizer(found: object, call: str) -> None:
    """Raise TypeError, with the right call, for other objects (arguments may be swapped)."""
    if isinstance(found, Combined):
        raise TypeError(
            f"optimizer must be an Optimizer of instep, got {kind(found)}; call {call} for each of "
            "its optimizers"
        )
    if not isinstance(found, Optimizer):
        raise TypeError(f"optimizer must be an Optimizer of instep, got {kind(found)}; call {call}")


def require_optimizers(found: object, call: str) -> None:
    """Raise TypeError for objects that are neither one optimizer nor several as one."""
    if not isinstance(found, Combined):
        require_optimizer(found, call)
