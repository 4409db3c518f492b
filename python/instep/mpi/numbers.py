"""The hyperparameters of a step in the form in which ranks compare them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from instep import _core
from instep._support.wording import shown
from instep.mpi.ranked import RankedPlan
from instep.optimizers.groups import number_names
from instep.optimizers.settings import NONFINITE

__all__ = ["Settled", "StepNumbers", "alike", "difference", "names_of"]

_TOLERANCE = 1e-12  # of another C library's cos or pow
_OF_ALL = ("clip_norm", "ema_decay", "nonfinite")


class StepNumbers(NamedTuple):
    """For each optimizer its groups' numbers and its extras, then the extras of all together and the scale."""

    members: list[tuple[list[list[float]], tuple[float, float, int]]]
    limits: tuple[float, float, int]
    scale: float

    def encoded(self) -> bytes:
        """Return all numbers, one after the other."""
        flat = array("d")
        for groups, extras in self.members:
            for group in groups:
                flat.extend(group)
            flat.extend(extras)
        flat.extend(self.limits)
        flat.append(self.scale)
        return flat.tobytes()

    def replaced(self, encoded: bytes) -> StepNumbers:
        """Return the numbers of another rank, which are as many."""
        flat = iter(array("d", encoded))

        def some(count: int) -> list[float]:
            return [next(flat) for _ in range(count)]

        def extras() -> tuple[float, float, int]:
            clip_norm, ema_decay, nonfinite = some(3)
            return clip_norm, ema_decay, int(nonfinite)

        members = []
        for groups, _ in self.members:
            own = [some(len(group)) for group in groups]
            members.append((own, extras()))
        limits = extras()
        return StepNumbers(members, limits, next(flat))


class _Answer(NamedTuple):
    """What an optimizer has said of its numbers, and until when that holds."""

    now: Any
    numbers: tuple[list[list[float]], tuple[float, float, int]]
    ask_from: int


class Settled:
    """Asks the optimizers for their numbers where these may have changed, as the core does."""

    def __init__(self) -> None:
        self._answers: dict[int, _Answer] = {}

    def of(self, key: int, owner: Any, current: Any, completed: int) -> Any:
        """Return the numbers of a step after so many completed ones."""
        answer = self._answers.get(key)
        if answer is None or answer.now is not current.now or completed >= answer.ask_from:
            now = current.now
            groups, extras, ask_from = _core.in_default_environment(
                owner._hyperparameters_at, completed
            )
            answer = self._answers[key] = _Answer(now, (groups, extras), ask_from)
        return answer.numbers


def names_of(plans: Sequence[RankedPlan], rules: Sequence[Any]) -> list[str]:
    """Return the names of the numbers, in the order in which they are encoded."""
    found = []
    for k, (plan, rule) in enumerate(zip(plans, rules, strict=True)):
        of_member = f" of optimizers[{k}]" if len(plans) > 1 else ""
        groups = plan.current.now.groups
        for g in range(len(groups)):
            of_group = f" of group {g}" if len(groups) > 1 else ""
            found += [f"{name}{of_group}{of_member}" for name in number_names(rule)]
        found += [f"{name}{of_member}" for name in _OF_ALL]
    return [*found, *_OF_ALL, "grad_scale"]


def difference(encoded: Sequence[bytes], names: Sequence[str]) -> str | None:
    """Say which number isn't the same on all ranks, or return None if all are nearly the same."""
    tables = [np.frombuffer(each, np.float64) for each in encoded]
    for rank, table in enumerate(tables):
        if len(table) != len(tables[0]):
            return f"rank {rank} has {len(table)} numbers, rank 0 has {len(tables[0])}"
        off = ~alike(tables[0], table, _TOLERANCE)
        if off.any():
            k = int(np.argmax(off))
            return _told(names[k] if k < len(names) else "a number", [t[k] for t in tables])
    return None


def alike(a: Any, b: Any, tolerance: float) -> Any:
    """Tell which numbers differ by no more than this share of the larger one; NaN is like NaN."""
    with np.errstate(all="ignore"):
        near = np.abs(a - b) <= tolerance * np.maximum(np.abs(a), np.abs(b))
    return near | (a == b) | (np.isnan(a) & np.isnan(b))


def _told(name: str, values: Sequence[float]) -> str:
    """Name the rank whose value is another one than that of most, or than rank 0's."""
    told: list[Any] = [None if np.isnan(value) else float(value) for value in values]
    if name.startswith("nonfinite"):
        told = [NONFINITE[int(value)] for value in values]
    usual = max(told, key=told.count) if len(told) > 2 else told[0]
    rank = next(k for k, value in enumerate(told) if value != usual)
    others = "the others" if len(told) > 2 else f"rank {1 - rank}"
    return f"rank {rank}: {name} is {shown(told[rank])}, on {others} {shown(usual)}"
