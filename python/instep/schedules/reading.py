"""Schedules from the dictionaries that `instep.schedules.writing` describes. Nothing in them is executed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from instep._support import documentation
from instep._support.checks import require_keys
from instep._support.wording import kind, shown
from instep.schedules.checks import count
from instep.schedules.loading import Loading
from instep.schedules.names import MODULE_OF_CLASS, load
from instep.schedules.writing import (
    CALLABLE,
    DEEPEST,
    callable_name,
    defaults_left_out,
    field_by_key,
    is_instep,
    is_stateful,
)

if TYPE_CHECKING:
    from instep.schedules.base import Schedule
    from instep.schedules.loading import Choose

__all__ = ["from_dict", "other_callables", "restored"]

_MOST_PARTS = 10_000  # a list that contains itself twice, for example, stands for 2^50 schedules


@documentation.without_quotes
def from_dict(stored: dict[str, Any]) -> Schedule:
    """Make the schedule that `Schedule.to_dict` described. Nothing in `stored` is executed.

    Parameters
    ----------
    stored : dict
        The class's name under "schedule" and each argument under its own name, except the argument
        `schedule`, which is under "of".

    Returns
    -------
    Schedule
        Equal to the schedule that was stored.

    Raises
    ------
    ValueError
        If the class is unknown, a field is unknown or missing, a value has the wrong type or is out
        of its range, or schedules are nested more than 50 levels deep.

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
    """Make the schedule that was stored, for a place whose present value may be of any kind."""
    _require_small(stored)
    return _restored(stored, present, choose)


def other_callables(stored: Any, present: Any) -> Iterator[tuple[Any, str]]:
    """Yield the stored name and the present name of each callable that has another name now.

    `restored` has taken the present callable in each case.
    """
    if isinstance(stored, (list, tuple)) and isinstance(present, tuple):
        for part, own in zip(stored, present, strict=False):
            yield from other_callables(part, own)
    elif isinstance(stored, Mapping) and set(stored) == {CALLABLE}:
        if stored[CALLABLE] != (name := callable_name(present)):
            yield stored[CALLABLE], name
    elif isinstance(stored, Mapping) and is_instep(type(present)):
        if stored["schedule"] != type(present).__name__:
            return  # no callable in it, or `restored` would have missed the present one
        for key, field in field_by_key(type(present)).items():
            yield from other_callables(stored.get(key), getattr(present, field))


def _require_small(stored: Any) -> None:
    """Raise ValueError for a dictionary that is nested deeper, or has more parts, than any schedule."""
    parts = 0
    rest: list[tuple[Any, int]] = [(stored, 0)]
    while rest:
        outer, level = rest.pop()
        if isinstance(outer, dict):
            level += 1
            inner = list(outer.values())
        elif isinstance(outer, list):
            inner = outer
            if any(isinstance(item, list) for item in inner):
                raise ValueError(
                    "an argument of a stored schedule must be no list of lists, got a list in a list"
                )
        else:
            continue
        parts += 1
        if level > DEEPEST + 1:  # the last one may be a state or the name of a callable
            raise ValueError(
                f"a stored schedule must be nested at most {DEEPEST} levels deep, got more"
            )
        if parts > _MOST_PARTS:
            raise ValueError(f"a stored schedule must have at most {_MOST_PARTS} parts, got more")
        rest.extend((item, level) for item in inner if isinstance(item, (dict, list)))


def _restored(stored: Any, present: Any, choose: Choose) -> Schedule:
    if not isinstance(stored, dict):
        raise ValueError(f"a stored schedule must be a dict, got {kind(stored)}")
    if set(stored) == {CALLABLE}:
        if not callable(present) or is_instep(type(present)):
            raise ValueError(
                "a stored schedule must be of instep.schedules, got the callable "
                f"{shown(stored[CALLABLE])}; make the optimizer with it before loading"
            )
        own_callable: Schedule = present
        return own_callable
    values = dict(stored)
    name = values.pop("schedule", None)
    if not isinstance(name, str) or name not in MODULE_OF_CLASS:
        raise ValueError(f"'schedule' must name a class of instep.schedules, got {shown(name)}")
    cls: type[Any] = load(name, MODULE_OF_CLASS[name])
    fields = field_by_key(cls)
    values = {**defaults_left_out(cls), **values}
    stateful = is_stateful(cls)
    own = present if type(present) is cls else None
    try:
        number = count(f"a stored {name}: shared", values.pop("shared", 0)) if stateful else 0
        require_keys(
            f"a stored {name}", values, [*fields, "state"] if stateful else fields, "fields"
        )
        state = values.pop("state") if stateful else None
        schedule: Schedule = cls(
            **{
                field: _argument(values[key], getattr(own, field, None), choose)
                for key, field in fields.items()
            }
        )
        if stateful:
            cls.load_state_dict(schedule, state)
    except TypeError as error:
        raise ValueError(str(error)) from error
    return choose(schedule, own, number if "shared" in stored else None) if stateful else schedule


def _argument(value: Any, present: Any, choose: Choose) -> Any:
    """Return an argument in the form that the constructors take."""
    if isinstance(value, list):
        fits = isinstance(present, tuple) and len(present) == len(value)
        own = present if fits else (None,) * len(value)
        return [_argument(item, mine, choose) for item, mine in zip(value, own, strict=True)]
    return _restored(value, present, choose) if isinstance(value, dict) else value
