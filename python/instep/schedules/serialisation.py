"""Schedules as dictionaries of JSON's types, and back: no pickle, no code.

A schedule becomes ``{"schedule": its class's name, argument: value, ...}``, with schedules inside
it written in the same way. The argument called `schedule` is stored as "of", since its own name is
taken; a `ReduceOnPlateau` has its state under "state".
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from instep.schedules.arguments import exact_fields, found

if TYPE_CHECKING:
    from instep.schedules.base import Schedule


def to_dict(schedule: Any, name: str = "the schedule") -> dict[str, Any]:
    """Return the dictionary of a schedule of this package; see `Schedule.to_dict`."""
    cls = type(schedule)
    if _known_classes().get(cls.__name__) is not cls:
        raise TypeError(
            f"{name} must be of a class of instep.schedules to be stored, got {found(schedule)}"
        )
    stored = {"schedule": cls.__name__}
    for key, argument in _arguments_by_key(cls).items():
        stored[key] = _stored(getattr(schedule, argument), f"{cls.__name__}: {argument}")
    if hasattr(schedule, "state_dict"):
        stored["state"] = schedule.state_dict()
    return stored


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
    if not isinstance(stored, dict):
        raise ValueError(f"a stored schedule must be a dict, got {found(stored)}")
    values = dict(stored)
    name = values.pop("schedule", None)
    cls = _known_classes().get(name) if isinstance(name, str) else None
    if cls is None:
        raise ValueError(f"'schedule' must name a class of instep.schedules, got {found(name)}")
    arguments = _arguments_by_key(cls)
    stateful = hasattr(cls, "load_state_dict")
    exact_fields(f"a stored {name}", values, [*arguments, "state"] if stateful else arguments)
    try:
        state = values.pop("state") if stateful else None
        schedule = cls(**{arguments[key]: _restored(value) for key, value in values.items()})
        if stateful:
            schedule.load_state_dict(state)
    except TypeError as error:
        raise ValueError(str(error)) from error
    restored: Schedule = schedule
    return restored


def _known_classes() -> dict[str, type[Any]]:
    """Return the schedules that the package exports, by name."""
    from instep import schedules  # noqa: PLC0415 (it imports this module)

    classes = schedules.Schedule.__subclasses__()
    return {cls.__name__: cls for cls in classes if vars(schedules).get(cls.__name__) is cls}


def _arguments_by_key(cls: type[Any]) -> dict[str, str]:
    names = [field.name for field in fields(cls) if field.init]
    return {"of" if name == "schedule" else name: name for name in names}


def _stored(value: Any, name: str) -> Any:
    """Return an argument as JSON holds it."""
    if isinstance(value, tuple):
        return [_stored(item, f"{name}[{i}]") for i, item in enumerate(value)]
    return to_dict(value, name) if callable(value) else value


def _restored(value: Any) -> Any:
    """Return an argument as the constructors take it."""
    if isinstance(value, list):
        return [_restored(item) for item in value]
    return from_dict(value) if isinstance(value, dict) else value
