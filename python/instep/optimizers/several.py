"""Optimizers that are held together, and their arrays by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from instep._support import documentation
from instep.optimizers.containers import Array
from instep.optimizers.current import Current, Values
from instep.optimizers.hyperparameters import Nonfinite, Number
from instep.optimizers.plans import make_combined
from instep.optimizers.settings import Limits
from instep.optimizers.views import View

if TYPE_CHECKING:
    from instep.optimizers.base import Optimizer
    from instep.optimizers.bound import Views

__all__ = ["Several"]

Value = TypeVar("Value")


class _Merged(NamedTuple):
    """The arrays of all optimizers, by name."""

    of: tuple[Views, ...]
    params: View[Array]
    state: View[View[Array]]
    averages: View[Array]


@documentation.without_quotes
class Several(Limits):
    """The part of a `Combined` that doesn't step, from which its arrays are read."""

    # This makes combined.lr = 0.1, which would have no effect, an error.
    __slots__ = ("_current", "_merged", "_optimizers", "_plan")

    def _set_up(
        self, optimizers: tuple[Optimizer, ...], clip_norm: Number | None, nonfinite: Nonfinite
    ) -> None:
        self._optimizers = optimizers
        self._merged: _Merged | None = None
        self._current = Current(Values((), clip_norm, None, nonfinite, {}))
        plans = [optimizer._plan for optimizer in optimizers]
        self._plan = make_combined(optimizers, plans, self._current)
        self._plan.check_memory()

    @property
    def optimizers(self) -> tuple[Optimizer, ...]:
        """The optimizers, in the order in which they were given."""
        return self._optimizers

    # ---- reading -------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed steps of the Combined; the optimizers have counts of their own."""
        return self._plan.step_count

    @property
    def skipped_steps(self) -> int:
        """Steps that changed nothing, because a gradient was not finite under ``nonfinite="skip"``."""
        return self._plan.skipped_steps

    @property
    def grad_norm(self) -> float | None:
        """Euclidean norm of all gradients of the last step, before clipping; None if there is none.

        It is that of `Optimizer.grad_norm`, over all optimizers. The optimizers' own is None after
        a step of the Combined.
        """
        return self._plan.grad_norm

    @property
    def params(self) -> Mapping[str, Array]:
        """The parameters of all optimizers by name: the caller's arrays, in a read-only dict."""
        return self._arrays.params

    @property
    def state(self) -> Mapping[str, Mapping[str, Array]]:
        """The states of all optimizers, by parameter's name and state's name: the arrays in use."""
        return self._arrays.state

    @property
    def averages(self) -> Mapping[str, Array]:
        """The moving averages of all optimizers by parameter's name: the arrays in use."""
        return self._arrays.averages

    @property
    def accumulated(self) -> Mapping[str, Array]:
        """The sums of `accumulate` so far, by parameter's name: the arrays in use."""
        return self._merge([optimizer.accumulated for optimizer in self._optimizers])

    def memory(self) -> dict[str, int]:
        """Return the bytes of the arrays of all optimizers, by kind, as `Optimizer.memory` does."""
        each = [optimizer.memory() for optimizer in self._optimizers]
        return {kind: sum(own[kind] for own in each) for kind in each[0]}

    def reset_remainders(self) -> None:
        """Set the remainders of ``master_bits`` to zero in all optimizers."""
        for optimizer in self._optimizers:
            optimizer.reset_remainders()

    @property
    def _arrays(self) -> _Merged:
        """The arrays in use, by name; new views after groups have been added."""
        of = tuple(optimizer._arrays for optimizer in self._optimizers)
        merged = self._merged
        if merged is None or any(a is not b for a, b in zip(of, merged.of, strict=True)):
            params, states, averages = (
                self._merge([getattr(views, name) for views in of])
                for name in ("params", "states", "averages")
            )
            merged = self._merged = _Merged(of, params, states, averages)
        return merged

    def _merge(self, parts: Sequence[Mapping[str, Value]]) -> View[Value]:
        """Return entries of all optimizers in one dict, whose names are those of `params`."""
        names = [name for optimizer in self._optimizers for name in optimizer.params]
        unique = len(set(names)) == len(names)
        return View(
            (name if unique else f"{k}.{name}", value)
            for k, part in enumerate(parts)
            for name, value in part.items()
        )

    def _warn_of_replaced(self, stacklevel: int = 3) -> None:
        for optimizer in self._optimizers:
            optimizer._warn_of_replaced(stacklevel + 1)
