"""What becomes of the stateful schedules that are there already, when others are loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from instep.schedules.base import Schedule

#: Called with a stateful schedule as it was stored; the present one of its class at its place, or
#: None; and its number, or None. Returns the one to use.
Choose: TypeAlias = "Callable[[Schedule, Schedule | None, int | None], Schedule]"


class Loading:
    """Stored schedules on their way into places where schedules may be already.

    A stateful one that is there already stays, whoever else holds it, and takes over what was
    stored; where there is none, places that shared one share one again. To know who shares, every
    place is gone through twice: with `note`, and then with `choose`.
    """

    def __init__(self) -> None:
        self._first: dict[object, Schedule] = {}  # stored, by number and by the present one's id
        self._in_place: dict[int, Schedule] = {}  # the present one by the number of its place
        self._changes: dict[int, tuple[Any, Schedule]] = {}

    def note(self, new: Schedule, present: Schedule | None, number: int | None) -> Schedule:
        """Take down what is stored for a place; raise ValueError where it contradicts another."""
        keys: list[object] = [] if number is None else [("number", number)]
        if present is not None:
            keys.append(id(present))
            self._changes[id(present)] = present, new
            if number is not None:
                self._in_place.setdefault(number, present)
        for key in keys:
            if self._first.setdefault(key, new) != new:
                raise ValueError(
                    f"one {type(new).__name__} stands at several places, and what is stored for "
                    "them differs; the same, or one object for each place, is wanted"
                )
        return new

    def choose(self, new: Schedule, present: Schedule | None, number: int | None) -> Schedule:
        """Return the schedule that is to stand at a place."""
        if present is not None or number is None:
            return new if present is None else present
        return self._in_place.get(number, self._first["number", number])

    def finish(self) -> None:
        """Have the present ones take over what was stored for them."""
        for present, new in self._changes.values():
            present._take_over(new)
