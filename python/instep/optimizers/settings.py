"""The hyperparameters of an optimizer: read, set, checked, and their numbers at a step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from instep import _core
from instep._support.wording import shown
from instep.optimizers.containers import NamedParameters
from instep.optimizers.groups import ParamGroup
from instep.optimizers.hyperparameters import (
    Flag,
    Interval,
    Number,
    Numeric,
    NumericOrNone,
    check_number_or_none,
    value_at,
)
from instep.optimizers.rule import Rule

__all__ = ["Settings"]

_CLIP_NORM = Interval(0.0, low_open=True, finite=False)  # infinity: the norm alone, nothing clipped
_EMA_DECAY = Interval(0.0, 1.0, high_open=True)
_NONFINITE = ("propagate", "skip", "raise")


class Settings(Rule):
    """What every optimizer can be set to: hyperparameters of groups, and what all groups share."""

    # So that optimizer.rate = 0.1, which would set nothing, is an error.
    __slots__ = (
        "_clip_norm",
        "_ema_decay",
        "_nonfinite",
        "_param_groups",
        "_version",
    )

    lr = Numeric(Interval())
    weight_decay = Numeric(Interval())
    l1 = Numeric(Interval())
    clip_value = NumericOrNone(Interval(low_open=True, finite=False))
    maximize = Flag()

    def __init__(
        self,
        groups: Sequence[NamedParameters],
        settings: Mapping[str, Any],
        clip_norm: Number | None,
        nonfinite: str,
        ema_decay: Number | None,
    ) -> None:
        self._clip_norm = self._checked_clip_norm(clip_norm)
        self._ema_decay = check_number_or_none("ema_decay", ema_decay, _EMA_DECAY)
        self._nonfinite = _checked_nonfinite(nonfinite)
        self._version = _core.Version()
        self._param_groups = [
            ParamGroup(type(self), named, {**settings, **named.settings}, self._version)
            for named in groups
        ]

    # ---- reading and setting -------------------------------------------------------------------

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The parameter groups; hyperparameters are read and set as ``param_groups[0]["lr"]``."""
        return tuple(self._param_groups)

    @property
    def clip_norm(self) -> Number | None:
        """The limit that the norm of all gradients together is scaled down to; None for no limit."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: Number | None) -> None:
        self._replace(clip_norm=self._checked_clip_norm(value))

    @property
    def ema_decay(self) -> Number | None:
        """The share of the moving averages that a step keeps; None where there are none."""
        return self._ema_decay

    @ema_decay.setter
    def ema_decay(self, value: Number | None) -> None:
        self._replace(ema_decay=self._checked_ema_decay(value))

    @property
    def nonfinite(self) -> str:
        """What happens where a gradient is infinite or NaN: "propagate", "skip" or "raise"."""
        return self._nonfinite

    def __repr__(self) -> str:
        groups = self.param_groups
        values = {name: [group[name] for group in groups] for name in groups[0]._settings}
        shown = {n: all_[0] if all_[1:] == all_[:-1] else all_ for n, all_ in values.items()}
        shown.update(self._extras_in_use())
        shown["parameters"] = sum(len(group.names) for group in groups)
        if len(groups) > 1:
            shown["groups"] = len(groups)
        text = ", ".join(f"{name}={value!r}" for name, value in shown.items())
        return f"{type(self).__name__}({text})"

    def _extras_in_use(self) -> dict[str, Any]:
        """What all groups share, where it isn't the default; for `repr`."""
        extras = {
            "clip_norm": self._clip_norm,
            "ema_decay": self._ema_decay,
            "nonfinite": None if self._nonfinite == _NONFINITE[0] else self._nonfinite,
        }
        return {name: value for name, value in extras.items() if value is not None}

    # ---- their numbers -------------------------------------------------------------------------

    def _hyperparameters_at(
        self, step: int
    ) -> tuple[list[list[float]], tuple[float, float, int], int]:
        """Return the numbers of a step, for groups and for all, and when the core is to ask again.

        It asks after every change anyway, and of schedules at each step.
        """
        clip_norm = _number_at("clip_norm", self._clip_norm, _CLIP_NORM, step)
        ema_decay = _number_at("ema_decay", self._ema_decay, _EMA_DECAY, step)
        return (
            [group._values_at(step) for group in self.param_groups],
            (clip_norm, ema_decay, _NONFINITE.index(self._nonfinite)),
            step + 1 if self._scheduled() else max(1_000, 10 * step),
        )

    @staticmethod
    def _checked_clip_norm(value: Any) -> Number | None:
        return check_number_or_none("clip_norm", value, _CLIP_NORM)

    def _checked_ema_decay(self, value: Any) -> Number | None:
        """Check a value that is to replace the present one."""
        checked = check_number_or_none("ema_decay", value, _EMA_DECAY)
        if (checked is None) != (self._ema_decay is None):
            raise ValueError(
                f"ema_decay can't go from {self._ema_decay!r} to {value!r}: whether there are "
                "averages is fixed when the optimizer is made"
            )
        return checked

    def _set_in_all_groups(self, name: str, value: Any) -> None:
        """Set a hyperparameter in every group, or, where one refuses it, in none."""
        self._replace(groups=[group._checked_change(name, value) for group in self._param_groups])

    def _replace(self, *, groups: Sequence[dict[str, Any]] | None = None, **values: Any) -> None:
        """Put in place what has been checked: the settings of all groups, clip_norm, ema_decay.

        The version goes up before and after. The core compares it, under its lock, with the version
        whose numbers it has: whatever a step reads in between, the next one reads again.
        """
        self._version.raise_()
        try:
            for group, settings in zip(self._param_groups, groups or (), strict=groups is not None):
                group._replace(settings)
            for name, value in values.items():
                setattr(self, f"_{name}", value)
        finally:
            self._version.raise_()

    def _scheduled(self) -> bool:
        return (
            callable(self._clip_norm)
            or callable(self._ema_decay)
            or any(group._schedules for group in self._param_groups)
        )


def _number_at(name: str, value: Number | None, interval: Interval, step: int) -> float:
    """The number of this step; NaN for None."""
    if callable(value):
        return value_at(name, value, interval, step)
    return math.nan if value is None else value


def _checked_nonfinite(value: object) -> str:
    if value not in _NONFINITE:
        raise ValueError(f"nonfinite is {shown(value)}; one of {', '.join(_NONFINITE)} is wanted")
    return str(value)
