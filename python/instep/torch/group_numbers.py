"""The numbers of a parameter group, as instep's rules take them."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any, NamedTuple

from instep import rules
from instep.optimizers.groups import group_values
from instep.optimizers.hyperparameters import Count, Flag, OneOf, as_float
from instep.optimizers.rule import DECOUPLED_WEIGHT_DECAY, InTorch, Rule
from instep.torch.tensors import number

__all__ = ["Group", "Kind", "kinds", "read", "with_lr"]

# Entries of torch's groups that choose how torch computes, and that no step here can follow.
_REFUSED = ("capturable", "differentiable")
_SETTLED = (float, int, bool, str, type(None))
_SHARED: dict[str, Any] = {
    "weight_decay": 0.0,
    "l1": 0.0,
    "clip_value": None,
    "maximize": False,
    "decoupled_l1": False,
}


class Kind:
    """A class of optimizers: its rule, and torch's form of it if torch has the rule."""

    def __init__(self, rule: type[Rule], torchs: InTorch | None) -> None:
        self.rule = rule
        self.torchs = torchs
        self.hyperparameters = (
            tuple(rule._hyperparameters) if torchs is None else torchs.hyperparameters
        )
        # Whether each parameter has its number of steps as "step" in its state.
        self.counts_steps = torchs is None or torchs.counts_steps
        # The keys of a group for the hyperparameters; first `lr`, which is the core's first, too.
        self.keys = tuple(n if torchs is None else torchs.name_of(n) for n in self.hyperparameters)
        self.lr: Any = rule._hyperparameters["lr"]
        assert self.keys[0] == rule._core_hyperparameters[0] == "lr"
        # All entries of a group that choose its rule and numbers.
        self.read = (*self.keys, *_REFUSED, DECOUPLED_WEIGHT_DECAY)


class Group(NamedTuple):
    """A group's rule and numbers in the core's terms."""

    rule: str
    options: tuple[str, ...]
    numbers: tuple[float, ...]
    given: tuple[Any, ...]  # from which they come, without tensors
    is_settled: bool  # they change only with the objects in the group
    is_dry: bool  # lr is 0, and the rule divides by it: states are made, and no step is taken


def kinds() -> dict[str, Kind]:
    """Return the classes of instep's rules by name; by torch's name if torch has the rule."""
    found = {}
    for name in rules.__all__:
        rule = getattr(rules, name)
        torchs = vars(rule).get("_torch")
        if torchs is None or torchs.name == name:  # Momentum is torch's SGD, too
            found[name] = Kind(rule, torchs)
    return found


def read(kind: Kind, k: int, group: Mapping[str, Any], before: Group | None = None) -> Group:
    """Check the numbers of group `k`, and return them; quickly if only ``lr`` differs from `before`."""
    given = tuple(map(group.get, kind.read))
    is_settled = all(map(_is_settled, given))
    if not is_settled:
        named = zip(kind.read, given, strict=True)
        given = tuple(number(f"{key} of group {k}", value) for key, value in named)
    if before is not None and (changed := with_lr(kind, before, given)):
        return changed._replace(is_settled=is_settled)
    for name in _REFUSED:
        if group.get(name):
            raise ValueError(f"{name} of group {k} must be False, got {group[name]!r}")
    rule, settings = _rule(kind, group), dict(_SHARED)
    if kind.torchs is not None:
        settings |= kind.torchs.absent
    for name, key, value in zip(kind.hyperparameters, kind.keys, given, strict=False):
        if key not in group:
            raise KeyError(f"group {k} must have {key!r}, got {', '.join(map(str, group))}")
        settings[name] = _taken(kind, name, value)
    is_dry = settings["lr"] == 0 and kind.lr.interval.low_open
    if is_dry:
        settings["lr"] = 1.0  # any that the rule takes
    try:
        values = group_values(rule, settings)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (group {k})") from None
    options = rule._options(values.settings)
    return Group(rule._rule, options, tuple(values.constants), given, is_settled, is_dry)


def with_lr(kind: Kind, before: Group, given: tuple[Any, ...]) -> Group | None:
    """Return the group with another learning rate, as a scheduler sets it; None if more has changed."""
    same = map(operator.is_, before.given[1:], given[1:])
    if type(given[0]) is not float or before.is_dry or given[0] == 0.0 or not all(same):
        return None
    try:
        lr = as_float(given[0], kind.lr.interval, "lr")
    except ValueError:
        return None  # to be named like the others
    return before._replace(numbers=(lr, *before.numbers[1:]), given=given)


def _rule(kind: Kind, group: Mapping[str, Any]) -> type[Rule]:
    """Return the rule of a group: torch's Adam and AdamW differ by an entry of the group."""
    if kind.torchs is None or kind.rule not in (rules.Adam, rules.AdamW):
        return kind.rule
    decoupled = group.get(DECOUPLED_WEIGHT_DECAY, kind.rule is rules.AdamW)
    return rules.AdamW if decoupled else rules.Adam


def _taken(kind: Kind, name: str, value: Any) -> Any:
    """Return a hyperparameter as the rule takes it."""
    known = kind.rule._hyperparameters[name]
    if isinstance(known, OneOf) and value is None and kind.torchs is not None:
        return kind.torchs.none_is[name]
    if isinstance(known, Flag) and isinstance(value, (bool, int)):
        return bool(value)
    if isinstance(known, Count) and isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _is_settled(value: Any) -> bool:
    """Tell whether a value stays as it is for as long as it is the same object."""
    if type(value) is tuple:
        return all(type(part) in _SETTLED for part in value)
    return type(value) in _SETTLED
