"""The numbers of a parameter group, as instep's rules take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from instep import rules
from instep.optimizers.groups import group_values
from instep.optimizers.hyperparameters import Count, Flag, OneOf
from instep.optimizers.rule import DECOUPLED_WEIGHT_DECAY, InTorch, Rule
from instep.torch.tensors import number

__all__ = ["Group", "Kind", "kinds", "read"]

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


class Kind(NamedTuple):
    """A class of optimizers: its rule, and torch's form of it if torch has it."""

    rule: type[Rule]
    torchs: InTorch | None

    @property
    def hyperparameters(self) -> tuple[str, ...]:
        """Names in instep of the hyperparameters that groups have."""
        return tuple(self.rule._hyperparameters) if self.torchs is None else self.torchs.hyperparameters

    @property
    def counts_steps(self) -> bool:
        """Whether each parameter has its number of steps as "step" in its state."""
        return self.torchs is None or self.torchs.counts_steps

    def name_of(self, hyperparameter: str) -> str:
        """Return the key of a hyperparameter in a group."""
        return hyperparameter if self.torchs is None else self.torchs.name_of(hyperparameter)


class Group(NamedTuple):
    """A group's rule and numbers in the core's terms."""

    rule: str
    options: tuple[str, ...]
    numbers: tuple[float, ...]
    is_settled: bool  # the numbers change only with the objects in the group


def kinds() -> dict[str, Kind]:
    """Return the classes of instep's rules by name; by torch's name if torch has the rule."""
    found = {}
    for name in rules.__all__:
        rule = getattr(rules, name)
        if "_torch" not in vars(rule):  # a rule with other defaults
            continue
        torchs = vars(rule)["_torch"]
        found[name if torchs is None else torchs.name] = Kind(rule, torchs)
    return found


def read(kind: Kind, k: int, group: Mapping[str, Any]) -> Group:
    """Check the numbers of group `k`, and return them."""
    for name in _REFUSED:
        if group.get(name):
            raise ValueError(f"{name} of group {k} must be False, got {group[name]!r}")
    rule, found, settings = _rule(kind, group), [], dict(_SHARED)
    if kind.torchs is not None:
        settings |= kind.torchs.absent
    for name in kind.hyperparameters:
        key = kind.name_of(name)
        if key not in group:
            raise KeyError(f"group {k} must have {key!r}, got {', '.join(map(str, group))}")
        found.append(group[key])
        settings[name] = _taken(kind, name, f"{key} of group {k}", group[key])
    try:
        values = group_values(rule, settings)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error} (group {k})") from None
    options = rule._options(values.settings)
    return Group(rule._rule, options, tuple(values.constants), all(map(_is_settled, found)))


def _rule(kind: Kind, group: Mapping[str, Any]) -> type[Rule]:
    """Return the rule of a group: torch's Adam and AdamW differ by an entry of the group."""
    if kind.torchs is None or kind.rule not in (rules.Adam, rules.AdamW):
        return kind.rule
    decoupled = group.get(DECOUPLED_WEIGHT_DECAY, kind.rule is rules.AdamW)
    return rules.AdamW if decoupled else rules.Adam


def _taken(kind: Kind, name: str, who: str, value: Any) -> Any:
    known = kind.rule._hyperparameters[name]
    if isinstance(known, OneOf) and value is None and kind.torchs is not None:
        return kind.torchs.none_is[name]
    plain = number(who, value)
    if isinstance(known, Flag) and isinstance(plain, (bool, int)):
        return bool(plain)
    if isinstance(known, Count) and isinstance(plain, float) and plain.is_integer():
        return int(plain)
    return plain


def _is_settled(value: Any) -> bool:
    """Tell whether a value stays as it is for as long as it is the same object."""
    if type(value) is tuple:
        return all(type(part) in _SETTLED for part in value)
    return type(value) in _SETTLED
