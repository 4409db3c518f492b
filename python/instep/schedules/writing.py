"""Schedules as dictionaries of JSON types: no pickle, no code.

A schedule becomes ``{"schedule": its class's name, argument: value, ...}``; schedules inside it are
written in the same way. The argument called `schedule` is stored as "of", since "schedule" has the
class's name. A `ReduceOnPlateau` has its state under "state". If one object is used at several
places, all of these places have the same number under "shared", which no other object has. A
`later_argument` is left out if it has its default. In an optimizer's state, a callable that is not
a schedule of this package becomes ``{"callable": its name}``; the optimizer must have the callable
already when this state is loaded.

`Schedule` has `to_dict` as a method, so this module can't import `Schedule`. It recognises
schedules by an attribute that `Schedule` gives its classes: ``_stored_as``, the name that
`from_dict` knows, or None for a class of your own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from instep._support.wording import shown

if TYPE_CHECKING:
    from dataclasses import Field

__all__ = [
    "CALLABLE",
    "DEEPEST",
    "callable_name",
    "constructor_fields",
    "defaults_left_out",
    "field_by_key",
    "is_instep",
    "is_stateful",
    "later_argument",
    "levels",
    "places_by_number",
    "to_dict",
]

CALLABLE = "callable"

_LATER = "instep: later"  # in the metadata of a field

#: Levels of schedules in schedules. Evaluation, comparison, copying and storing recurse for each
#: level. A copy needs the most of the interpreter's 1,000 nested calls: 7 for each level.
DEEPEST = 50


def to_dict(
    schedule: Any,
    name: str = "the schedule",
    numbers: Mapping[int, int] | None = None,
    *,
    by_name: bool = False,
) -> dict[str, Any]:
    """Return the dictionary of a schedule of this package; see `Schedule.to_dict`.

    Any other callable raises TypeError. With `by_name`, only its name is stored instead, unless it
    is or holds a schedule with a state, because the state would be lost.
    """
    cls = type(schedule)
    if not is_instep(cls):
        if by_name and next(_stateful_in(schedule), None) is None:
            return {CALLABLE: callable_name(schedule)}
        raise TypeError(
            f"{name} must be of a class of instep.schedules to be stored, got {shown(schedule)}"
        )
    numbers = places_by_number([schedule]) if numbers is None else numbers
    stored: dict[str, Any] = {"schedule": cls.__name__}
    left_out = defaults_left_out(cls)
    for key, field in field_by_key(cls).items():
        value = getattr(schedule, field)
        if key in left_out and value == left_out[key]:
            continue
        stored[key] = _stored(value, f"{cls.__name__}: {field}", numbers, by_name)
    if is_stateful(cls):
        stored["state"] = schedule.state_dict()
        if id(schedule) in numbers:
            stored["shared"] = numbers[id(schedule)]
    return stored


def callable_name(function: Any) -> str:
    """Return the name under which a callable of your own is stored."""
    name: str = getattr(function, "__qualname__", type(function).__qualname__)
    return name


def places_by_number(values: Iterable[Any]) -> dict[int, int]:
    """Number the stateful schedules that these values have at several places; return the numbers by id."""
    counts = Counter(id(schedule) for value in values for schedule in _stateful_in(value))
    several = (identity for identity, places in counts.items() if places > 1)
    return {identity: number for number, identity in enumerate(several)}


def levels(schedule: Any) -> int:
    """Return how many levels deep a schedule is nested; `DEEPEST` + 1 stands for any greater number."""
    count, level = 0, {id(schedule): schedule}
    # a loop, level by level: a recursion may be too deep, and takes too long if parts are shared
    while level and count <= DEEPEST:
        count += 1
        level = {id(part): part for whole in level.values() for part in _parts(whole)}
    return count


def is_instep(cls: type[Any]) -> bool:
    """Tell whether a class is a schedule of this package, not of your own."""
    return getattr(cls, "_stored_as", None) is not None


def is_stateful(cls: type[Any]) -> bool:
    """Tell whether a class of schedules keeps a state."""
    return hasattr(cls, "load_state_dict")


def constructor_fields(schedule: Any) -> list[Field[Any]]:
    """Return the fields that the constructor takes."""
    return [field for field in _fields(schedule) if field.init]


def field_by_key(cls: type[Any]) -> dict[str, str]:
    """Return the names of a class's fields, by the names under which they are stored."""
    names = [field.name for field in constructor_fields(cls)]
    return {"of" if name == "schedule" else name: name for name in names}


def later_argument(default: Any) -> Any:
    """Declare an argument of a schedule that earlier versions of the schedule don't have.

    A schedule with the default is stored as in earlier versions, so that these versions can read
    it.
    """
    from dataclasses import field  # noqa: PLC0415 (as in `_fields`)

    return field(default=default, metadata={_LATER: True})


def defaults_left_out(cls: type[Any]) -> dict[str, Any]:
    """Return the defaults that are not stored, by the names under which other values are stored."""
    return {
        field.name: field.default for field in constructor_fields(cls) if _LATER in field.metadata
    }


def _is_schedule(value: Any) -> bool:
    return hasattr(type(value), "_stored_as")


def _fields(schedule: Any) -> tuple[Field[Any], ...]:
    from dataclasses import fields  # noqa: PLC0415 (``import instep`` is quicker without it)

    return fields(schedule)


def _parts(schedule: Any) -> Iterator[Any]:
    """Yield the schedules directly inside a schedule, in their order."""
    values = [getattr(schedule, field.name) for field in _fields(schedule)][::-1]
    while values:
        value = values.pop()
        if isinstance(value, tuple):
            values.extend(value[::-1])
        elif _is_schedule(value):
            yield value


def _stateful_in(value: Any) -> Iterator[Any]:
    """Yield the stateful schedules in a hyperparameter, once for each place."""
    rest = list(value)[::-1] if isinstance(value, tuple) else [value]
    while rest:
        schedule = rest.pop()
        if not _is_schedule(schedule):
            continue
        if is_stateful(type(schedule)):
            yield schedule
        else:
            rest.extend(list(_parts(schedule))[::-1])


def _stored(value: Any, name: str, numbers: Mapping[int, int], by_name: bool) -> Any:
    """Return an argument in the form that JSON can hold."""
    if isinstance(value, tuple):
        return [_stored(item, f"{name}[{i}]", numbers, by_name) for i, item in enumerate(value)]
    return to_dict(value, name, numbers, by_name=by_name) if callable(value) else value
