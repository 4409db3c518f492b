"""Loading stored schedules into an optimizer that may have stateful schedules already."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from instep.schedules.base import Schedule

#: Called with a stateful schedule as it was stored; with the present schedule of the same class at
#: the same place, or None; and with the stored schedule's number, or None. Returns the schedule to
#: use.
Choose: TypeAlias = "Callable[[Schedule, Schedule | None, int | None], Schedule]"


class Loading:
    """Stored schedules on their way into places that may have schedules already.

    If a place has a stateful schedule already, this object stays, since the caller may hold it,
    too. It takes over the stored arguments and state. Other places that shared one object when they
    were stored share one object again. To know which places share, the caller goes through all
    places twice: first with `note`, then with `choose`.
    """

    def __init__(self) -> None:
        self._first: dict[object, Schedule] = {}  # stored, by number and by the present one's id
        self._in_place: dict[int, Schedule] = {}  # the present schedule, by the number of its place
        self._changes: dict[int, tuple[Any, Schedule]] = {}

    def note(self, new: Schedule, present: Schedule | None, number: int | None) -> Schedule:
        """Note what is stored for a place; raise ValueError if it contradicts another place."""
        keys: list[object] = [] if number is None else [("number", number)]
        if present is not None:
            keys.append(id(present))
            self._changes[id(present)] = present, new
            if number is not None:
                self._in_place.setdefault(number, present)
        for key in keys:
            if self._first.setdefault(key, new) != new:
                raise ValueError(
                    f"what is stored for one {type(new).__name__} at several places must be the same, "
                    "got different states; make one object for each place"
                )
        return new

    def choose(self, new: Schedule, present: Schedule | None, number: int | None) -> Schedule:
        """Return the schedule for a place."""
        if present is not None or number is None:
            return new if present is None else present
        return self._in_place.get(number, self._first["number", number])

    def finish(self) -> None:
        """Let the present schedules take over the stored arguments and states."""
        for present, new in self._changes.values():
            present._take_over(new)
