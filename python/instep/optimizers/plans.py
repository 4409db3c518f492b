"""Who makes the core's plans of optimizers: the core, or whoever takes over for a scope, such as `instep.mpi`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Protocol

from instep import _core

if TYPE_CHECKING:
    from instep.optimizers.current import Current
    from instep.optimizers.state_storage import StateFolder
    from instep.optimizers.stored_formats import StoredFormats

__all__ = ["Maker", "folder_of", "made_by", "make_combined", "make_plan"]


class Maker(Protocol):
    """Makes objects that do what the core's plans do."""

    def make_plan(
        self, averaged: bool, current: Current, storage: StateFolder | None, **formats: Any
    ) -> Any:
        """Make the plan of one optimizer; the keywords are those of the core."""

    def make_combined(
        self, optimizers: Sequence[Any], plans: Sequence[Any], current: Current
    ) -> Any:
        """Make the plan of several optimizers as one."""

    def folder(self, path: Any) -> Any:
        """Return the folder for states that the program wants in this one."""


_MAKER: ContextVar[Maker | None] = ContextVar("instep.maker", default=None)


@contextmanager
def made_by(maker: Maker) -> Iterator[None]:
    """Let `maker` make the plans of the optimizers that are made in the ``with`` block."""
    token = _MAKER.set(maker)
    try:
        yield
    finally:
        _MAKER.reset(token)


def folder_of(path: Any) -> Any:
    """Return the folder for states that the program wants in this one."""
    maker = _MAKER.get()
    return path if maker is None or path is None else maker.folder(path)


def make_plan(
    averaged: bool, current: Current, storage: StateFolder | None, formats: StoredFormats
) -> _core.Plan:
    """Make the plan of one optimizer."""
    maker: Any = _MAKER.get() or _core
    plan: _core.Plan = maker.make_plan(averaged, current, storage, **formats.for_core())
    return plan


def make_combined(
    optimizers: Sequence[Any], plans: Sequence[Any], current: Current
) -> _core.Combined:
    """Make the plan of several optimizers as one."""
    maker: Any = _MAKER.get() or _core
    for k, plan in enumerate(plans):
        if maker is _core and not isinstance(plan, _core.Plan):
            raise TypeError(
                f"optimizers[{k}] must be an optimizer in one process, got a Distributed; let the function "
                "that Distributed calls make the Combined of all optimizers"
            )
    combined: _core.Combined = maker.make_combined(optimizers, plans, current)
    return combined
