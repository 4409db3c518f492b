"""The places of an optimizer's parameters in a `Steps`, and their states in ``optimizer.state``, bound together."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

from instep import _core
from instep._support.wording import kind as kind_of
from instep.optimizers.groups import check_alike
from instep.optimizers.hyperparameters import Nonfinite
from instep.optimizers.settings import NONFINITE
from instep.optimizers.stored_formats import StoredFormats, kinds_of, rounded_at_random
from instep.torch.entry import Entry, Made, names_of, number
from instep.torch.formats import require_for
from instep.torch.group_numbers import Group, Kind, read, with_lr
from instep.torch.memory import LOOKS, layout, memory
from instep.torch.tensors import check, torch
from instep.torch.threads import TEAM

__all__ = ["Places"]

_RULES = _core.rules()


class Places:
    """A place for each parameter, in the order of ``param_groups``, whatever has a gradient.

    `refresh` finds out what has changed in ``param_groups`` and ``state`` since it was called last.
    """

    def __init__(
        self,
        kind: Kind,
        optimizer: Any,
        limits: tuple[float, Nonfinite],
        formats: StoredFormats,
    ) -> None:
        at_random = rounded_at_random(formats.rounding, formats.param_rounding)
        self.steps = _core.make_steps(at_random, formats.seed)
        self.steps.share_team(TEAM)
        self._kind = kind
        self._formats = formats
        self._groups: list[Group] = []
        self._lists = [list(group["params"]) for group in optimizer.param_groups]
        self.params = [p for params in self._lists for p in params]
        self._group_of = [k for k, params in enumerate(self._lists) for _ in params]
        self._starts = list(itertools.accumulate(map(len, self._lists), initial=0))  # by group
        self._bound: list[tuple[Any, ...] | None] = [None] * len(self.params)  # what a place holds
        self._joint: dict[str, tuple[Any, Any]] = {}  # numbers that all share, and their arrays
        self._layouts: list[list[tuple[Any, ...]]] = [[] for _ in self.params]
        self.empty: list[int] = list(range(len(self.params)))
        self.numbers: tuple[tuple[float, ...], ...] = ()
        self.is_settled = True  # the numbers change only with the objects in the groups
        clip_norm, nonfinite = limits
        self.extras = clip_norm, 0.0, NONFINITE.index(nonfinite)
        self.may_skip = nonfinite == "skip"
        self._seen: Any = None  # of groups and states
        self._seen_states: Any = None
        self.steps.append(len(self.params))

    def match(self, optimizer: Any) -> bool:
        """Tell whether the optimizer still has the objects of the last `refresh`."""
        return self._seen is not None and self._seen.matches(
            optimizer.param_groups, optimizer.state
        )

    def fit(self, optimizer: Any) -> bool:
        """Tell whether the optimizer still has these parameters in these groups."""
        groups = optimizer.param_groups
        return len(groups) == len(self._lists) and all(
            len(mine) == len(group["params"]) and all(map(operator.is_, mine, group["params"]))
            for mine, group in zip(self._lists, groups, strict=True)
        )

    def refresh_numbers(self, optimizer: Any) -> None:
        """Take the numbers of the groups; a group with another rule or options loses its bindings."""
        groups = self._read(optimizer)
        for k, group in enumerate(groups):
            chosen = group.rule, group.options
            if k >= len(self._groups):
                self.steps.add_group(*chosen)
            elif chosen != self._groups[k][:2]:
                self._unbind(i for i, its in enumerate(self._group_of) if its == k)
                self.steps.set_group(k, *chosen)
        self._take(groups)

    def without_dry(self, gradients: list[Any]) -> list[Any]:
        """Return the gradients without those of groups whose rule can't step with their learning rate, 0."""
        if not any(group.is_dry for group in self._groups):
            return gradients
        groups = map(self._groups.__getitem__, self._group_of)
        return [None if group.is_dry else g for g, group in zip(gradients, groups, strict=True)]

    def renumber(self, optimizer: Any) -> bool:
        """Take the numbers of the groups if nothing else has changed, and tell whether that was so."""
        if self.is_settled and self._follow(optimizer):
            return True
        has_states = self._seen is not None and self._seen_states.matches(optimizer.state)
        if not has_states or not self.fit(optimizer):
            return False
        groups = self._read(optimizer)
        if any(
            new[:2] != old[:2] or new.is_dry for new, old in zip(groups, self._groups, strict=True)
        ):
            return False
        self._take(groups)
        self._seen = _snapshot(optimizer)
        return True

    def _follow(self, optimizer: Any) -> bool:
        """Take the learning rates alone, as a scheduler sets them, and tell whether nothing else has changed."""
        groups, seen = optimizer.param_groups, self._seen
        if seen is None or not seen.follow("lr", groups, optimizer.state):
            return False
        self._seen = None  # until the numbers here are those that it has now
        changed = []
        for group, before in zip(groups, self._groups, strict=True):
            other = with_lr(self._kind, before, (group["lr"], *before.given[1:]))
            if other is None:
                return False
            changed.append(other)
        self._take(changed)
        self._seen = seen
        return True

    def _take(self, groups: list[Group]) -> None:
        self._groups = groups
        self.numbers = tuple(group.numbers for group in groups)
        self.is_settled = all(group.is_settled for group in groups)

    def _read(self, optimizer: Any) -> list[Group]:
        """Return the groups' numbers, checked alone and together."""
        before = [*self._groups, *[None] * (len(self._lists) - len(self._groups))]
        groups = [
            read(self._kind, k, group, old)
            for k, (group, old) in enumerate(zip(optimizer.param_groups, before, strict=True))
        ]
        rule = self._kind.rule
        if rule._alike:
            settings = [
                {name: group[name] for name in self._kind.hyperparameters}
                for group in optimizer.param_groups
            ]
            check_alike(rule, settings, "set the same in all groups")
        return groups

    def refresh(self, optimizer: Any, gradients: Sequence[Any], made: Made) -> None:
        """Bind what has a gradient and is not bound to the objects in ``optimizer.state``, or to their memory.

        States that are missing are made; `made` gets what the dicts get.
        """
        self._seen = None
        require_for(self._formats, self.params)
        self.refresh_numbers(optimizer)
        # Before anything is bound: what these places had may be the memory of a new state by now.
        self._unbind(self._moved())
        state = optimizer.state
        wanted: list[int] = []
        for i, parameter in enumerate(self.params):
            there = state.get(parameter, {})
            if not isinstance(there, dict):
                raise TypeError(
                    f"the state of '{self.name(optimizer, i)}' must be a dict, got {kind_of(there)}"
                )
            if gradients[i] is None and not there:
                self._unbind([i])
                continue
            held = self._bound[i]
            if held is None or not all(map(operator.is_, held, self._objects(i, there))):
                wanted.append(i)
        # All of them first: places whose rule has states in common are bound to new ones together.
        self._unbind(wanted)
        for i in wanted:
            entry = self._entry(optimizer, i, made)
            if gradients[i] is not None or not entry.missing():
                self._bind(optimizer, i, entry)
        self.empty = [i for i, held in enumerate(self._bound) if held is None]
        if not any(group.is_dry for group in self._groups):
            self._seen = _snapshot(optimizer)
            self._seen_states = _core.make_snapshot(optimizer.state)

    def name(self, optimizer: Any, i: int) -> str:
        """Return a parameter's name, or the numbers of its group and in its group."""
        k = self._group_of[i]
        place = i - self._starts[k]
        names = optimizer.param_groups[k].get("param_names")
        if names is not None and place < len(names):
            return str(names[place])
        return f"{k}.{place}" if len(self._lists) > 1 else str(place)

    def _moved(self) -> list[int]:
        """Return the places of which a tensor has been given other memory."""
        if LOOKS:
            return self.steps.changed_places()
        bound = (i for i, held in enumerate(self._bound) if held is not None)
        return [i for i in bound if self._layout(i) != self._layouts[i]]

    def _layout(self, i: int) -> list[tuple[Any, ...]]:
        """Return the layouts of a place's tensors, where the core can't look at them."""
        tensors = () if LOOKS else (self.params[i], *(self._bound[i] or ()))
        return [layout(tensor) for tensor in tensors if tensor is not None]

    def _unbind(self, places: Iterable[int]) -> None:
        for i in places:
            if self._bound[i] is not None:
                self._bound[i] = None
                self.steps.unbind(i)

    def _objects(self, i: int, states: Any) -> tuple[Any, ...]:
        """Return the objects of a parameter's dict that a step uses."""
        rule, options = self._groups[self._group_of[i]][:2]
        return tuple(map(states.get, names_of(rule, options)))

    def _entry(self, optimizer: Any, i: int, made: Made) -> Entry:
        rule = self._groups[self._group_of[i]][:2]
        name = self.name(optimizer, i)
        return Entry(optimizer.state, self.params[i], name, rule, self._formats, made)

    def _bind(self, optimizer: Any, i: int, entry: Entry) -> None:
        parameter, k, name = self.params[i], self._group_of[i], entry.name
        check(f"parameter '{name}'", parameter, is_parameter=True)
        missing, states = entry.missing(), entry.states
        count: Any = None
        if self._kind.counts_steps:
            was_counted = states.get("step") is not None
            count = entry.count()
            if float(count) == 0:
                entry.renew()
            elif missing and was_counted:
                entry.check_begun(missing)
        for key in missing:
            entry.make(key)
        own: dict[str, Any] = {}
        for key in entry.keys:
            if key in kinds_of(self._groups[k].rule):
                own |= entry.for_core(key)
            else:
                own[key] = self._number(optimizer, states, name, key)
        if count is None:
            count = entry.own_count(missing, list(own.values()))
        own |= entry.remainder()
        arrays = {key: self._memory(k, key, tensor) for key, tensor in own.items()}
        counter = count if isinstance(count, int) else memory(count)
        self.steps.bind(i, name, k, memory(parameter), arrays, None, None, counter)
        self._bound[i] = self._objects(i, states)
        self._layouts[i] = self._layout(i)

    def _memory(self, k: int, key: str, state: Any) -> Any:
        """Return a state as the core takes it; a number that all parameters share is one array."""
        if LOOKS or key not in _RULES[self._groups[k].rule]["joint_states"]:
            return memory(state)
        known, array = self._joint.get(key, (None, None))
        if known is not state:
            array = memory(state)
            self._joint[key] = state, array
        return array

    def _number(self, optimizer: Any, states: Any, name: str, key: str) -> Any:
        """Return a state that is a number, as float64; one tensor for all parameters if the rule has one for all."""
        rule, value = _RULES[self._groups[0].rule], states[key]
        if not isinstance(value, torch.Tensor):
            value = number(f"state '{key}' of '{name}'", value, torch.float64)
        states[key] = value.to(dtype=torch.float64, device="cpu")
        if key not in rule["joint_states"]:
            return states[key]
        others = (optimizer.state.get(other, {}).get(key) for other in self.params)
        first = next(other for other in others if other is not None)
        if first is not states[key] and states[key].item() not in (0.0, float(first)):
            raise ValueError(
                f"state '{key}' of '{name}' must be {float(first)}, as the rule has one for all "
                f"parameters, got {states[key].item()}"
            )
        states[key] = first
        return first


def _snapshot(optimizer: Any) -> Any:
    """Return what an optimizer holds; None if it has containers whose changes a snapshot doesn't see."""
    groups = optimizer.param_groups
    are_plain = isinstance(groups, list) and all(
        isinstance(group, dict) and isinstance(group["params"], (list, tuple)) for group in groups
    )
    if are_plain and isinstance(optimizer.state, dict):
        return _core.make_snapshot(groups, optimizer.state)
    return None


def limit(clip_norm: float | None) -> float:
    """Return clip_norm as the core takes it."""
    return math.nan if clip_norm is None else clip_norm
