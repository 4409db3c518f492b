"""The hyperparameters in force: one object, replaced as a whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from instep.optimizers.hyperparameters import value_at

if TYPE_CHECKING:
    from instep.optimizers.hyperparameters import Interval, Nonfinite, Number

__all__ = ["Current", "GroupValues", "Values"]


class GroupValues(NamedTuple):
    """The hyperparameters of one group, and the same as constants and schedules, sorted once for all steps."""

    settings: Mapping[str, Any]
    constants: list[float]  # in the core's order, 0 where there is a schedule
    schedules: list[tuple[int, str, Callable[[int], float], Interval]]  # the first is the place

    def at(self, step: int) -> list[float]:
        """The numbers of this step. Raises a schedule's error, or ValueError for a bad value."""
        values = self.constants.copy()
        for place, name, schedule, interval in self.schedules:
            values[place] = value_at(name, schedule, interval, step)
        return values


class Values(NamedTuple):
    """All hyperparameters of an optimizer that can change."""

    groups: tuple[GroupValues, ...]
    clip_norm: Number | None
    ema_decay: Number | None
    nonfinite: Nonfinite
    defaults: Mapping[str, Any]  # of groups that are added: as made, or set for all groups since


class Current:
    """Holds the `Values` in force, for an optimizer, its groups and the core.

    A change of the values is a single store, so a Ctrl-C, or a step of another thread, comes before it or after it. If
    the core finds other values here than at its last step, it asks for the numbers again.
    """

    __slots__ = ("now",)

    def __init__(self, now: Values) -> None:
        self.now = now

    def change(self, changed: Callable[[Values], Values]) -> None:
        """Replace the values by ``changed(values)``; an error of `changed` is raised unchanged."""
        while True:  # until no other thread has changed the values meanwhile
            before = self.now
            after = changed(before)
            if self.now is before:
                self.now = after
                return
