"""Schedules as dictionaries of JSON's types, and back: no pickle, no code.

A schedule becomes ``{"schedule": its class's name, argument: value, ...}``, with schedules inside
it written in the same way. The argument called `schedule` is stored as "of", since its own name is
taken; a `ReduceOnPlateau` has its state under "state" and, where one object stands at several
places, a number of its own under "shared" at each. In an optimizer's state a callable that is no
schedule of this package becomes ``{"callable": its name}``, and has to be there when that is loaded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from instep._support import documentation
from instep.schedules.checks import count, exact_fields, found
from instep.schedules.loading import Loading

if TYPE_CHECKING:
    from dataclasses import Field

    from instep.schedules.base import Schedule
    from instep.schedules.loading import Choose


_CALLABLE = "callable"


def to_dict(
    schedule: Any,
    name: str = "the schedule",
    numbers: Mapping[int, int] | None = None,
    *,
    by_name: bool = False,
) -> dict[str, Any]:
    """Return the dictionary of a schedule of this package; see `Schedule.to_dict`.

    Any other callable raises TypeError or, `by_name`, leaves its name, unless it is a schedule that
    keeps a state, which would be lost.
    """
    cls = type(schedule)
    if not _is_known(cls):
        if by_name and next(_stateful_in(schedule), None) is None:
            return {_CALLABLE: getattr(schedule, "__qualname__", cls.__qualname__)}
        raise TypeError(
            f"{name} must be of a class of instep.schedules to be stored, got {found(schedule)}"
        )
    numbers = shared([schedule]) if numbers is None else numbers
    stored: dict[str, Any] = {"schedule": cls.__name__}
    for key, argument in _arguments_by_key(cls).items():
        value = getattr(schedule, argument)
        stored[key] = _stored(value, f"{cls.__name__}: {argument}", numbers, by_name)
    if _is_stateful(cls):
        stored["state"] = schedule.state_dict()
        if id(schedule) in numbers:
            stored["shared"] = numbers[id(schedule)]
    return stored


def shared(values: Iterable[Any]) -> dict[int, int]:
    """Number the stateful schedules that stand at several places among these values, by their id."""
    counts = Counter(id(schedule) for value in values for schedule in _stateful_in(value))
    several = (identity for identity, places in counts.items() if places > 1)
    return {identity: number for number, identity in enumerate(several)}


@documentation.without_quotes
def from_dict(stored: dict[str, Any]) -> Schedule:
    """Make the schedule that `Schedule.to_dict` described. Nothing in `stored` is executed.

    Parameters
    ----------
    stored : dict
        The class's name under "schedule" and each argument under its own; `schedule`, where it is
        an argument, under "of".

    Returns
    -------
    Schedule
        Equal to the one that was stored.

    Raises
    ------
    ValueError
        If the class is unknown, a field unknown or missing, or a value of the wrong type or out of
        its range.

    Examples
    --------
    >>> from instep.schedules import Linear, from_dict
    >>> from_dict({"schedule": "Linear", "init": 0.1, "end": 0.2, "steps": 5})
    Linear(init=0.1, end=0.2, steps=5)
    >>> from_dict(Linear(0.1, 0.2, steps=5).to_dict()) == Linear(0.1, 0.2, steps=5)
    True
    """
    loading = Loading()
    restored(stored, None, loading.note)
    return restored(stored, None, loading.choose)


def restored(stored: Any, present: Any, choose: Choose) -> Schedule:
    """Make the schedule that was stored, in the place of the present value of any kind."""
    if not isinstance(stored, dict):
        raise ValueError(f"a stored schedule must be a dict, got {found(stored)}")
    if set(stored) == {_CALLABLE}:
        if not callable(present) or _is_known(type(present)):
            raise ValueError(
                f"{stored[_CALLABLE]!r} is no schedule of instep.schedules and can't be stored; "
                "make the optimizer with it before loading"
            )
        own_callable: Schedule = present
        return own_callable
    values = dict(stored)
    name = values.pop("schedule", None)
    cls = _known_class(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"'schedule' must name a class of instep.schedules, got {found(name)}")
    arguments = _arguments_by_key(cls)
    stateful = _is_stateful(cls)
    own = present if type(present) is cls else None
    try:
        number = count(f"a stored {name}: shared", values.pop("shared", 0)) if stateful else 0
        exact_fields(f"a stored {name}", values, [*arguments, "state"] if stateful else arguments)
        state = values.pop("state") if stateful else None
        schedule: Schedule = cls(
            **{
                argument: _restored(values[key], getattr(own, argument, None), choose)
                for key, argument in arguments.items()
            }
        )
        if stateful:
            cls.load_state_dict(schedule, state)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return choose(schedule, own, number if "shared" in stored else None) if stateful else schedule


def _is_stateful(cls: type[Any]) -> bool:
    return hasattr(cls, "load_state_dict")


def _stateful_in(value: Any) -> Iterator[Any]:
    from instep.schedules.base import Schedule  # noqa: PLC0415 (it imports this module)

    if isinstance(value, tuple):
        for item in value:
            yield from _stateful_in(item)
    elif isinstance(value, Schedule):
        if _is_stateful(type(value)):
            yield value
        else:
            for field in _fields(value):
                yield from _stateful_in(getattr(value, field.name))


def _is_known(cls: type[Any]) -> bool:
    return _known_class(cls.__name__) is cls


def _known_class(name: str) -> type[Any] | None:
    """Return the schedule that the package exports under this name."""
    from instep import schedules  # noqa: PLC0415 (it imports this module)

    return getattr(schedules, name) if name in schedules._MODULE_OF_CLASS else None


def _fields(schedule: Any) -> tuple[Field[Any], ...]:
    from dataclasses import fields  # noqa: PLC0415 (``import instep`` is quicker without it)

    return fields(schedule)


def _arguments_by_key(cls: type[Any]) -> dict[str, str]:
    names = [field.name for field in _fields(cls) if field.init]
    return {"of" if name == "schedule" else name: name for name in names}


def _stored(value: Any, name: str, numbers: Mapping[int, int], by_name: bool) -> Any:
    """Return an argument as JSON holds it."""
    if isinstance(value, tuple):
        return [_stored(item, f"{name}[{i}]", numbers, by_name) for i, item in enumerate(value)]
    return to_dict(value, name, numbers, by_name=by_name) if callable(value) else value


def _restored(value: Any, present: Any, choose: Choose) -> Any:
    """Return an argument as the constructors take it."""
    if isinstance(value, list):
        fits = isinstance(present, tuple) and len(present) == len(value)
        own = present if fits else (None,) * len(value)
        return [_restored(item, mine, choose) for item, mine in zip(value, own, strict=True)]
    return restored(value, present, choose) if isinstance(value, dict) else value
