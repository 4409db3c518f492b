"""The numbers that a host passes to a step of `Steps`: checked, and in the core's order."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

from instep import _core
from instep._support.checks import check_flag, flag, mapping
from instep._support.reals import is_fixed, whole
from instep._support.wording import described, difference, kind, shown
from instep.optimizers.groups import check_alike, interval_of
from instep.optimizers.hyperparameters import Count, Interval, NumericOrNone, as_float
from instep.optimizers.rule import Rule, own_terms
from instep.optimizers.settings import Settings

__all__ = ["Numbers", "as_number", "as_sequence", "chosen"]

_OFF = {
    "clip_value": math.inf,
    "weight_decay": 0.0,
    "l1": 0.0,
    "maximize": False,
    "decoupled_l1": False,
    "decay_after": False,
}
_ANY = Interval(-math.inf)

#: For each group its rule and the options that are on.
Groups: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]


def chosen(rule: object, options: Iterable[str]) -> tuple[str, tuple[str, ...]]:
    """Check a rule's name and those of its options that are on."""
    rules = _core.rules()
    if not isinstance(rule, str):
        raise TypeError(f"rule must be one of {', '.join(rules)}, got {kind(rule)}")
    if rule not in rules:
        raise ValueError(f"rule must be one of {', '.join(rules)}, got {shown(rule)}")
    if isinstance(options, str):
        raise TypeError(
            f"options must be a list of names, got {shown(options)}; pass [{options!r}]"
        )
    options, known = tuple(options), rules[rule]["options"]
    for option in options:
        if option not in known:
            expected = f"one of {', '.join(known)}" if known else "none"
            raise ValueError(f"an option of rule {rule!r} must be {expected}, got {shown(option)}")
    return rule, options


class GroupNumbers:
    """The numbers that a group needs, by its rule and options."""

    def __init__(self, rule: str, options: tuple[str, ...]) -> None:
        known = _core.rules()[rule]
        self._names = known["hyperparameters"]
        self._own_terms = own_terms(rule, options)
        # Numbers that have no effect, since the option of the same name is off.
        self._idle = [n for n in self._names if n in known["options"] and n not in options]
        self._rule = of_rule = Rule._by_name.get(rule, Rule)
        self._intervals = {
            name: interval_of(of_rule, name) if of_rule._rule else _ANY for name in self._names
        }
        kinds = of_rule._hyperparameters
        # An option that is on needs its number.
        self._or_none = [
            n for n in self._names if isinstance(kinds.get(n), NumericOrNone) and n not in options
        ]
        optional = (set(_OFF) - self._own_terms) | (set(self._idle) & set(self._or_none))
        self._needed = [name for name in self._names if name not in optional]
        for term in (Settings.clip_value, Settings.weight_decay, Settings.l1):
            self._intervals[term._name] = term.interval
        # Flags that the rule refuses, and why.
        no_step_after = of_rule._no_decoupled_l1
        own_decay = "weight_decay is part of the rule" if "weight_decay" in self._own_terms else ""
        self._refused = {"decoupled_l1": no_step_after, "decay_after": own_decay or no_step_after}

    def in_order(self, group: int, numbers: Mapping[str, Any]) -> list[float]:
        """Check a group's numbers, and return them as the core takes them."""
        mapping(f"numbers[{group}]", numbers)
        if not numbers.keys() >= set(self._needed) or set(numbers).difference(self._names, _OFF):
            known = [*self._needed, *(n for n in numbers if n in self._names or n in _OFF)]
            raise ValueError(
                f"numbers[{group}] must have the numbers of the group's rule; "
                f"{difference(numbers, dict.fromkeys(known))}"
            )
        checked = {name: self._checked(group, name, value) for name, value in numbers.items()}
        found = [checked.get(name, 0.0) for name in self._names]
        around = {name: checked.get(name, float(off)) for name, off in _OFF.items()}
        around.update(dict.fromkeys(self._own_terms, 0.0))
        return [*found, *around.values()]

    def _checked(self, group: int, name: str, value: Any) -> float:
        who = f"{name} of group {group}"
        if _OFF.get(name) is False:
            check_flag(who, on=flag(who, value), refused=self._refused.get(name, ""))
            return float(value)
        if value is None and name in self._or_none:
            return math.nan
        number = as_float(value, self._intervals[name], who)
        if isinstance(hyperparameter := self._rule._hyperparameters.get(name), Count):
            hyperparameter.check(who, value)
        if name in self._idle and number != 0:
            off = "None" if name in self._or_none else "0"
            raise ValueError(
                f"{who} must be {off}, got {number!r}; make the group with the option {name!r} for others"
            )
        return number + 0.0  # -0.0 becomes 0.0


_numbers_of = functools.cache(GroupNumbers)


class Numbers:
    """The numbers of a step for all groups, in the core's order."""

    __slots__ = ("_given", "_groups", "_types", "in_order")

    # Those checked last: a host with a `Steps` for each parameter passes the same numbers to all.
    _latest: ClassVar[Numbers | None] = None

    def __init__(self, groups: Groups, numbers: Sequence[Any]) -> None:
        if isinstance(numbers, (Mapping, str)) or not isinstance(numbers, Sequence):
            raise TypeError(
                f"numbers must be a list with a dict for each group, got {kind(numbers)}"
            )
        if len(numbers) != len(groups):
            raise ValueError(
                f"numbers must be a list of {len(groups)}, with a dict for each group, got "
                f"{described(numbers)}"
            )
        self._groups = groups
        # Copies, since the caller may change the dicts later.
        self._given = [dict(one) if isinstance(one, Mapping) else one for one in numbers]
        self.in_order = [
            _numbers_of(rule, options).in_order(k, self._given[k])
            for k, (rule, options) in enumerate(groups)
        ]
        self._check_alike(groups)
        # An array without axes is a number, too, and may have another one at the next step.
        fixed = all(is_fixed(number) for one in self._given for number in one.values())
        self._types = [_types(one) for one in self._given] if fixed else None

    @classmethod
    def checked(cls, groups: Groups, numbers: Any) -> Numbers:
        """Check numbers, unless they are those that were checked last."""
        latest = cls._latest
        if latest is None or not latest.are_those_of(groups, numbers):
            cls._latest = latest = cls(groups, numbers)
        return latest

    def _check_alike(self, groups: Groups) -> None:
        for name in {rule for rule, _ in groups} & Rule._by_name.keys():
            of_rule = Rule._by_name[name]
            left_out = dict.fromkeys(of_rule._core_hyperparameters)  # None: they count as not given
            alike = [
                {**left_out, **self._given[k]}
                | {option: option in options for option in of_rule._core_options}
                for k, (rule, options) in enumerate(groups)
                if rule == name
            ]
            check_alike(of_rule, alike, "give the same to all, also to groups without places")

    def are_those_of(self, groups: object, numbers: Any) -> bool:
        """Tell whether these numbers are the same, so that a step needs no check; 1.0 and True are not the same."""
        try:
            return (
                groups == self._groups
                and self._given == list(numbers)
                and self._types == [_types(one) for one in numbers]
            )
        except Exception:  # if it is no list of dicts of numbers, but arrays, say
            return False


def _types(numbers: Mapping[str, Any]) -> list[type]:
    return [type(number) for number in numbers.values()]


def as_sequence(gradients: Any) -> Any:
    """Return gradients that can be indexed by number."""
    if isinstance(gradients, (list, tuple, Sequence)):  # the first two are told apart quicker
        return gradients
    by_number = hasattr(gradients, "__getitem__") and hasattr(gradients, "__len__")
    if by_number and not isinstance(gradients, Mapping):
        return gradients
    raise TypeError(
        f"gradients must be a list with an array or None for each place, got {kind(gradients)}"
    )


def as_number(name: str, value: object) -> int:
    """Return a count, or the number of a place or a group, as an int; the core checks its range."""
    number = whole(value)
    if number is None:
        raise TypeError(f"{name} must be an int of at least 0, got {shown(value)}")
    if abs(number) > 2**53:
        raise ValueError(f"{name} must be an int from 0 to 2**53, got {shown(number)}")
    return number
