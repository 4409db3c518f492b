"""The numbers that a host gives to a step of `Steps`: checked, and in the core's order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from instep import _core
from instep._support.wording import difference, kind, listed, shown
from instep.optimizers.groups import hyperparameter_of
from instep.optimizers.hyperparameters import Interval, as_float
from instep.optimizers.rule import Rule
from instep.optimizers.settings import Settings

__all__ = ["GroupNumbers", "chosen"]

_OFF = {"clip_value": math.inf, "weight_decay": 0.0, "l1": 0.0, "maximize": False}
_ANY = Interval(-math.inf)


def chosen(rule: object, options: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Check a rule's name and those of its options that are on."""
    rules = _core.rules()
    if not isinstance(rule, str):
        raise TypeError(f"rule is {kind(rule)}; the name of a rule is wanted: {', '.join(rules)}")
    if rule not in rules:
        raise ValueError(f"rule is {shown(rule)}; one of {', '.join(rules)} is wanted")
    if isinstance(options, str):
        raise TypeError(f"options is {shown(options)}; a list of names is wanted, as [{options!r}]")
    options, known = tuple(options), rules[rule]["options"]
    if unknown := [option for option in options if option not in known]:
        raise ValueError(
            f"options has {listed(unknown)}, which rule {rule!r} hasn't; it has {', '.join(known) or 'none'}"
        )
    return rule, options


class GroupNumbers:
    """What numbers a group wants, by its rule and options."""

    def __init__(self, rule: str, options: tuple[str, ...]) -> None:
        known = _core.rules()[rule]
        self._names = known["hyperparameters"]
        self._decoupled = "decoupled_decay" in options
        # Numbers that have no effect, as an option of their name is off.
        self._idle = [n for n in self._names if n in known["options"] and n not in options]
        optional = set(_OFF) - ({"weight_decay"} if self._decoupled else set())
        self._needed = [name for name in self._names if name not in optional]
        of_rule = Rule._by_name.get(rule)
        self._intervals = {
            name: _ANY if of_rule is None else hyperparameter_of(of_rule, name)[1].interval
            for name in self._names
        }
        for term in (Settings.clip_value, Settings.weight_decay, Settings.l1):
            self._intervals[term._name] = term.interval
        self._last: tuple[Mapping[str, Any], list[float]] | None = None

    def in_order(self, group: int, numbers: Mapping[str, Any]) -> list[float]:
        """Return the numbers as the core takes them; those of the last step have been checked."""
        last = self._last
        if last is not None and _are_equal(last[0], numbers):
            return last[1]
        if not isinstance(numbers, Mapping):
            raise TypeError(
                f"numbers[{group}] is {kind(numbers)}; a dict, name -> number, is wanted"
            )
        given = dict(numbers)
        if not given.keys() >= set(self._needed) or given.keys() - set(self._names) - set(_OFF):
            wanted = [*self._needed, *(n for n in given if n in self._names or n in _OFF)]
            raise ValueError(
                f"numbers[{group}] are not those of the group's rule; "
                f"{difference(given, dict.fromkeys(wanted))}"
            )
        checked = {name: self._checked(group, name, value) for name, value in given.items()}
        found = [checked.get(name, 0.0) for name in self._names]
        terms = {name: checked.get(name, float(off)) for name, off in _OFF.items()}
        if self._decoupled:  # the rule's own, none of the gradient's
            terms["weight_decay"] = 0.0
        in_order = [*found, *terms.values()]
        self._last = given, in_order
        return in_order

    def _checked(self, group: int, name: str, value: Any) -> float:
        who = f"{name} of group {group}"
        if name == "maximize":
            if not isinstance(value, bool):
                raise TypeError(f"{who} is {shown(value)}; True or False is wanted")
            return float(value)
        number = as_float(value, self._intervals[name], who)
        if name in self._idle and number != 0:
            raise ValueError(
                f"{who} is {number!r}, but the group was made without the option {name!r}, so 0 is wanted"
            )
        return number + 0.0  # -0.0 is equal to 0.0, and is to be as good as that


def _are_equal(mine: Mapping[str, Any], theirs: Any) -> bool:
    """Tell whether numbers are the same; 1.0 and True are not."""
    try:
        return bool(mine == theirs) and _types(mine) == _types(theirs)
    except Exception:  # of what is no dict of numbers, such as arrays of several
        return False


def _types(numbers: Mapping[str, Any]) -> list[type]:
    return [type(number) for number in numbers.values()]
