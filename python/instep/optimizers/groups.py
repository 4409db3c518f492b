"""Parameter groups: hyperparameters that can be read and changed between steps."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from instep import _core
from instep._support import documentation
from instep._support.checks import check_flag
from instep._support.wording import shown
from instep.optimizers.containers import FORMATS
from instep.optimizers.current import GroupValues
from instep.optimizers.hyperparameters import InInterval, Interval, NumericOrNone, value_at
from instep.optimizers.near_misses import hint
from instep.optimizers.rule import DECOUPLED_DECAY, DECOUPLED_WEIGHT_DECAY, own_terms
from instep.optimizers.stored_formats import StoredFormats, text_of_formats

if TYPE_CHECKING:
    from instep.optimizers.containers import Container, NamedParameters
    from instep.optimizers.current import Current, Values
    from instep.optimizers.rule import Rule

__all__ = [
    "ParamGroup",
    "check_alike",
    "group_values",
    "interval_of",
    "number_names",
    "taken",
]


@documentation.without_quotes
class ParamGroup(MutableMapping[str, Any]):
    """One group of parameters: ``group["lr"]`` reads a hyperparameter, ``group["lr"] = 0.1`` sets it.

    A new value is checked before it is set, and used from the next step on. Flags and numbers that turn
    something on (such as ``amsgrad``, ``eps_hat``, ``trust_ratio``, or whether ``momentum`` is zero)
    are fixed when the optimizer is made. So is ``state_dtype``, which a group has if it was made with
    one of its own. Copies and pickles of a group are plain dicts.
    """

    # This makes group.lr = 0.1, which would have no effect, an error.
    __slots__ = ("_current", "_index", "_options", "_parameters", "_rule")

    def __init__(
        self,
        rule: type[Rule],
        parameters: NamedParameters,
        current: Current,
        index: int,
        settings: Mapping[str, Any],
    ) -> None:
        self._rule = rule
        self._parameters = parameters
        self._current = current  # not the optimizer, which a group must not keep alive
        self._index = index
        self._options = rule._options(settings)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the group's parameters."""
        return self._parameters.names

    @property
    def params(self) -> Container:
        """The group's parameters, in a container like the one in which they were given."""
        return self._parameters.container

    @property
    def _settings(self) -> Mapping[str, Any]:
        """The hyperparameters in force."""
        return self._current.now.groups[self._index].settings

    def at(self, step: int, name: str | None = None) -> Any:
        """Return the group's hyperparameters as a step uses them; for each schedule, its number.

        Parameters
        ----------
        step : int
            The number of completed steps before the step; ``optimizer.step_count`` for the next
            step.
        name : str, optional
            Return only this hyperparameter. Without a name, all are returned, in a dict.

        Raises
        ------
        TypeError
            If there is no hyperparameter of this name. An error of a schedule is raised unchanged.
        """
        settings = self._settings
        if name is None:
            return {known: self._at(settings, step, known) for known in settings}
        return self._at(settings, step, name)

    def _at(self, settings: Mapping[str, Any], step: int, name: str) -> Any:
        """Return one of these hyperparameters, which are the group's of some moment."""
        known = self._rule._hyperparameters
        if name not in known:
            raise TypeError(_no_such(self._rule, name))
        value = settings[name]
        hyperparameter = known[name]
        if not isinstance(hyperparameter, InInterval):
            return value

        def number(name: str, value: Any, interval: Interval) -> Any:
            if not callable(value):
                return value
            return _core.in_default_environment(value_at, name, value, interval, step)

        if isinstance(value, tuple):
            return tuple(
                number(f"{name}[{k}]", part, hyperparameter.interval_of(k))
                for k, part in enumerate(value)
            )
        return number(name, value, hyperparameter.interval)

    def update(self, *others: Any, **more: Any) -> None:
        """Set several hyperparameters; if one of them is refused, set none."""
        new = taken(self._rule, dict(*others, **more))
        k = self._index

        def changed(now: Values) -> Values:
            mine = self._changed(now.groups[k], new)
            groups = (*now.groups[:k], mine, *now.groups[k + 1 :])
            check_alike(self._rule, [values.settings for values in groups])
            return now._replace(groups=groups)

        self._current.change(changed)

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[str, Any]:
        return copy.deepcopy(self._as_dict(), memo)

    def _as_dict(self) -> dict[str, Any]:
        return {"params": self.params, **self._settings, **self._parameters.formats}

    def __getitem__(self, name: str) -> Any:
        if name in self._parameters.formats:
            return self._parameters.formats[name]
        return self.params if name == "params" else self._settings[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self.update({name: value})

    def _changed(self, values: GroupValues, new: Mapping[str, Any]) -> GroupValues:
        """Return these values with some of them replaced by checked values."""
        return self._checked_values({**values.settings, **new})

    def _checked_values(self, settings: Mapping[str, Any]) -> GroupValues:
        """Check the hyperparameters that replace the present ones, and return them."""
        values = group_values(self._rule, settings)
        checked = values.settings
        for name in self._rule._fixed:
            fixed = self._rule._hyperparameters[name].fixed
            if fixed(self._settings[name]) != fixed(checked[name]):
                raise ValueError(
                    f"{name} must stay {shown(self._settings[name])}, got {shown(checked[name])}, "
                    "since the states depend on it; make a new optimizer"
                )
        for option in set(self._rule._options(checked)) ^ set(self._options):
            name = DECOUPLED_WEIGHT_DECAY if option == DECOUPLED_DECAY else option
            old, new = self._settings[name], checked[name]
            counts_none = isinstance(self._rule._hyperparameters[name], NumericOrNone)
            to_zero = new == 0 and not isinstance(new, bool) and not counts_none
            raise ValueError(
                f"{name} must stay {'other than 0' if to_zero else shown(old)}, got {shown(new)}, "
                "since states and options are fixed when the optimizer is made; "
                + (f"pass schedules.Constant({new!r})" if to_zero else "make a new optimizer")
            )
        return values

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self._as_dict(),)

    def __delitem__(self, name: str) -> None:
        raise TypeError("a hyperparameter can't be deleted; set it instead")

    def __iter__(self) -> Iterator[str]:
        yield "params"
        yield from self._settings
        yield from self._parameters.formats

    def __len__(self) -> int:
        return 1 + len(self._settings) + len(self._parameters.formats)

    def __repr__(self) -> str:
        told = {**self._settings, **text_of_formats(self._parameters.formats)}
        settings = ", ".join(f"{name}={value!r}" for name, value in told.items())
        return f"ParamGroup({settings}, params={list(self.names)})"


def taken(rule: type[Rule], new: Mapping[str, Any]) -> dict[str, Any]:
    """Check hyperparameters by themselves, once, and return the values to keep.

    The conversion of a value to a number may run the caller's code, and this code may set
    hyperparameters. So the conversion runs once, and isn't repeated if another change comes between.
    """
    return {name: _checked(rule, name, value) for name, value in new.items()}


def group_values(rule: type[Rule], settings: Mapping[str, Any]) -> GroupValues:
    """Check the hyperparameters of a group, and put them in the core's order."""
    checked = {name: _checked(rule, name, value) for name, value in settings.items()}
    check_flag("decoupled_l1", on=checked["decoupled_l1"], refused=rule._no_decoupled_l1)
    rule._check(checked)
    values = _named_values(rule, checked)
    constants = [0.0 if callable(value) else value for _, value, _ in values]
    return GroupValues(
        checked,
        [*constants, float(checked["maximize"]), float(checked["decoupled_l1"]), 0.0],
        [
            (place, name, value, interval)
            for place, (name, value, interval) in enumerate(values)
            if callable(value)
        ],
    )


def check_alike(
    rule: type[Rule], groups: Sequence[Mapping[str, Any]], way_out: str | None = None
) -> None:
    """Raise ValueError if groups differ in a number or an option that the rule has for all parameters together.

    `way_out` says how to mend it, if not by setting it for all groups of an optimizer.
    """
    for name in groups[0] if rule._alike else ():
        if _place(rule, name)[0] not in rule._alike:
            continue
        values = [group[name] for group in groups]
        none = ""
        if name == "lr":  # a group with 0 takes no part
            values = [value for value in values if value != 0]
            none = ", or 0"
        for other in values[1:]:
            if other != values[0]:
                in_optimizer = (
                    f"set it for all together, as in optimizer.{_place(rule, name)[0]} = ..."
                )
                raise ValueError(
                    f"{name} must be the same in all groups of {rule.__name__}{none}, got "
                    f"{shown(values[0])} and {shown(other)}; {way_out or in_optimizer}"
                )


def _checked(rule: type[Rule], name: str, value: Any) -> Any:
    if name == "params":
        raise TypeError("params can't be changed; make a new optimizer")
    if name in FORMATS:
        raise TypeError(
            f"{name} can't be changed, got {shown(value)}, since the states are made with their "
            "group; make a new optimizer"
        )
    known = rule._hyperparameters
    if name not in known:
        raise TypeError(_no_such(rule, name))
    return known[name].check(name, value)


def _no_such(rule: type[Rule], name: str) -> str:
    known = ", ".join((*rule._hyperparameters, *FORMATS))
    text = hint(name, [*rule._hyperparameters, *FORMATS])
    if name in _OF_ALL:
        text = f"; give {name} to the optimizer, for all groups together"
    return (
        f"a hyperparameter of a group of {rule.__name__} must be one of {known}, got {name!r}{text}"
    )


def _named_values(rule: type[Rule], settings: Mapping[str, Any]) -> list[tuple[str, Any, Interval]]:
    """Return every number that the core needs, in its order: name, number or callable, allowed interval."""
    values = []
    for name, whose, index, interval, none in _sources(rule):  # type: ignore[arg-type]  # mypy takes no class as hashable
        value = settings.get(whose) if index is None else settings[whose][index]
        values.append((name, none if value is None else value, interval))
    own = own_terms(rule._rule, rule._options(settings))
    for k, name in enumerate(("weight_decay", "l1"), start=len(values) - 2):
        if name in own:  # no term of the gradient
            values[k] = name, 0.0, values[k][2]
    return values


def number_names(rule: type[Rule]) -> list[str]:
    """Return the names of the numbers of a group, in the core's order."""
    own = [name for name, *_ in _sources(rule)]  # type: ignore[arg-type]  # as above
    return [*own, *_FLAGS]


# Arguments of the optimizer that are no hyperparameters of groups.
_OF_ALL = frozenset(
    ("clip_norm", "nonfinite", "ema_decay", "copy_to", "state_storage", *StoredFormats._fields)
)
_FLAGS = ("maximize", "decoupled_l1", "decay_after")  # the numbers after those of `_sources`


@functools.lru_cache(maxsize=64)
def _sources(rule: type[Rule]) -> list[tuple[str, str, int | None, Interval, float]]:
    """Return where each number comes from: name, hyperparameter, its part, interval, and the number for None.

    A class derived from `Optimizer` need not have the hyperparameters of options that it doesn't use.
    """
    found = []
    for name in rule._core_hyperparameters:
        whose, index = _place(rule, name)
        named = whose if index is None else f"{whose}[{index}]"
        if whose in rule._hyperparameters:
            found.append((named, whose, index, interval_of(rule, name), math.nan))
        else:
            off = rule._by_name[rule._rule]._absent()[whose]
            found.append((named, whose, index, Interval(), math.nan if off is None else off))
    for name, off in (("clip_value", math.inf), ("weight_decay", 0.0), ("l1", 0.0)):
        found.append((name, name, None, interval_of(rule, name), off))
    return found


def interval_of(rule: type[Rule], name: str) -> Interval:
    """Return the interval of a number of the core."""
    whose, index = _place(rule, name)
    hyperparameter = rule._hyperparameters[whose]
    assert isinstance(hyperparameter, InInterval)  # since it is a number in the core
    return hyperparameter.interval if index is None else hyperparameter.interval_of(index)


def _place(rule: type[Rule], name: str) -> tuple[str, int | None]:
    """Return the hyperparameter to which a number of the core belongs, and its place: beta1 is betas[0]."""
    several = name[:-1] + "s"
    if several in rule._hyperparameters and name not in rule._hyperparameters:
        return several, int(name[-1]) - 1
    return name, None
