"""Parameter groups: hyperparameters that can be read and changed between steps."""

from __future__ import annotations

import math
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from instep.optimizers.hyperparameters import InInterval, Interval, value_at

if TYPE_CHECKING:
    from instep._core import Version
    from instep.optimizers.containers import Container, NamedParameters
    from instep.optimizers.rule import Rule

__all__ = ["ParamGroup"]


class ParamGroup(MutableMapping[str, Any]):
    """One group of parameters: ``group["lr"]`` reads a hyperparameter, ``group["lr"] = 0.1`` sets it.

    A new value is checked before it is taken and used from the next step on. What decides which
    states a parameter has (such as ``amsgrad``, or ``momentum`` going from zero to more) is fixed
    when the optimizer is made. Copies and pickles of a group are plain dicts.
    """

    # So that group.lr = 0.1, which would set nothing, is an error.
    __slots__ = (
        "_constants",
        "_options",
        "_parameters",
        "_rule",
        "_schedules",
        "_settings",
        "_version",
    )

    def __init__(
        self,
        rule: type[Rule],
        parameters: NamedParameters,
        settings: dict[str, Any],
        version: Version,
    ) -> None:
        self._rule = rule
        self._parameters = parameters
        self._settings: dict[str, Any] = {}
        for name, value in settings.items():
            self._settings[name] = self._checked(name, value)
        rule._check(self._settings)
        self._options = rule._options(self._settings)
        self._version = version  # not the optimizer, whose arrays go when it goes
        self._prepare()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the group's parameters."""
        return self._parameters.names

    @property
    def params(self) -> Container:
        """The group's parameters, in a container like the one that they were given in."""
        return self._parameters.container

    def __getitem__(self, name: str) -> Any:
        return self.params if name == "params" else self._settings[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._replace(self._checked_change(name, value))

    def _checked_change(self, name: str, value: Any) -> dict[str, Any]:
        """Check a hyperparameter that is to replace the present one, and return all."""
        self._checked(name, value)  # for its own message, before it is looked at with the others
        return self._checked_settings({**self._settings, name: value})

    def _checked_settings(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Check hyperparameters that are to replace the present ones."""
        checked = {name: self._checked(name, value) for name, value in settings.items()}
        self._rule._check(checked)
        for name in set(self._rule._options(checked)) ^ set(self._options):
            old, new = self._settings[name], checked[name]
            to_zero = new == 0 and not isinstance(new, bool)
            raise ValueError(
                f"{name} can't go from {old!r} to {new!r}: that would change which states there "
                "are, which is fixed when the optimizer is made; "
                + (f"schedules.Constant({new!r}) can" if to_zero else "make a new optimizer")
            )
        return checked

    def _replace(self, checked: dict[str, Any]) -> None:
        self._version.raise_()
        try:
            self._settings = checked
            self._prepare()
        finally:  # a step may have read some of it meanwhile
            self._version.raise_()

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a hyperparameter can't be deleted; set it instead")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self._settings

    def __len__(self) -> int:
        return 1 + len(self._settings)

    def __repr__(self) -> str:
        settings = ", ".join(f"{name}={value!r}" for name, value in self._settings.items())
        return f"ParamGroup({settings}, params={list(self.names)})"

    def _checked(self, name: str, value: Any) -> Any:
        if name == "params":
            raise TypeError("params can't be changed; make a new optimizer")
        known = self._rule._hyperparameters
        if name not in known:
            raise TypeError(
                f"{self._rule.__name__} has no hyperparameter {name!r} in a group; it has "
                f"{', '.join(known)}"
            )
        return known[name].check(name, value)

    # ---- what the core takes -------------------------------------------------------------------

    def _named_values(self) -> list[tuple[str, Any, Interval]]:
        """Every number the core needs, in its order: name, number or callable, allowed interval."""
        rule = self._rule
        values = [self._named_value(name) for name in rule._core_hyperparameters]
        for name, off in (("clip_value", math.inf), ("weight_decay", 0.0), ("l1", 0.0)):
            _, value, interval = self._named_value(name)
            is_off = value is None or (name == "weight_decay" and rule._decoupled_decay)
            values.append((name, off if is_off else value, interval))
        return values

    def _named_value(self, name: str) -> tuple[str, Any, Interval]:
        if name[-1].isdigit() and name not in self._settings:  # beta1 is betas[0]
            pair, index = name[:-1] + "s", int(name[-1]) - 1
            value, name = self._settings[pair][index], f"{pair}[{index}]"
        else:
            pair, value = name, self._settings[name]
        kind = self._rule._hyperparameters[pair]
        assert isinstance(kind, InInterval)  # for it is a number in the core
        return name, value, kind.interval

    def _prepare(self) -> None:
        """Sort the numbers into constants and schedules, once for all steps until the next change."""
        values = self._named_values()
        self._constants = [0.0 if callable(value) else value for _, value, _ in values] + [
            float(self._settings["maximize"])
        ]
        self._schedules = [
            (place, name, value, interval)
            for place, (name, value, interval) in enumerate(values)
            if callable(value)
        ]

    def _values_at(self, step: int) -> list[float]:
        """The numbers of this step. Raises what a schedule raises, or ValueError for a bad value."""
        values = self._constants.copy()
        for place, name, schedule, interval in self._schedules:
            values[place] = value_at(name, schedule, interval, step)
        return values
