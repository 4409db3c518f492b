"""The hyperparameters of an optimizer: read, set, checked, and their numbers at a step."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, get_args

from instep._support import documentation
from instep._support.checks import word
from instep._support.wording import shown, text_of
from instep.optimizers.containers import Array, NamedParameters
from instep.optimizers.current import Current, GroupValues, Values
from instep.optimizers.groups import ParamGroup, check_alike, taken
from instep.optimizers.hyperparameters import (
    Flag,
    Interval,
    Nonfinite,
    Number,
    Numeric,
    NumericOrNone,
    check_number_or_none,
    value_at,
)
from instep.optimizers.near_misses import add_near_misses, without_near_misses
from instep.optimizers.rule import Rule

__all__ = [
    "CLIP_NORM",
    "EMA_DECAY",
    "GRAD_SCALE",
    "NONFINITE",
    "Held",
    "Limits",
    "Settings",
    "checked_nonfinite",
    "number_at",
]

CLIP_NORM = Interval(0.0, low_open=True, finite=False)  # infinity: the norm alone, nothing clipped
EMA_DECAY = Interval(0.0, 1.0)  # 1: the averages stay as they are
GRAD_SCALE = Interval(0.0, low_open=True)
NONFINITE: tuple[Nonfinite, ...] = get_args(Nonfinite)

_NEVER = 2**62  # steps


class Held(NamedTuple):
    """The groups of an optimizer, with the caller's containers; replaced as a whole when a group is added."""

    groups: tuple[ParamGroup, ...] = ()
    copies: tuple[tuple[Array | None, ...], ...] = ()
    grouped: bool = False  # whether gradients come in a list with an entry for each group

    @property
    def named(self) -> tuple[NamedParameters, ...]:
        """The parameters of each group."""
        return tuple(group._parameters for group in self.groups)


@documentation.without_quotes
class Limits:
    """The limits of a step's gradients, over all parameters together."""

    __slots__ = ()

    _current: Current

    @property
    def clip_norm(self) -> Number | None:
        """The limit of the norm of all gradients together; None for no limit."""
        return self._current.now.clip_norm

    @clip_norm.setter
    def clip_norm(self, value: Number | None) -> None:
        checked = check_number_or_none("clip_norm", value, CLIP_NORM)
        self._current.change(lambda now: now._replace(clip_norm=checked))

    @property
    def nonfinite(self) -> Nonfinite:
        """What happens if a gradient is infinite or NaN: "propagate", "skip" or "raise"."""
        return self._current.now.nonfinite

    @nonfinite.setter
    def nonfinite(self, value: Nonfinite) -> None:
        checked = checked_nonfinite(value)
        self._current.change(lambda now: now._replace(nonfinite=checked))

    def _limits_in_use(self) -> dict[str, Any]:
        """Limits that differ from the default; for `repr`."""
        limits = {
            "clip_norm": self.clip_norm,
            "nonfinite": None if self.nonfinite == NONFINITE[0] else self.nonfinite,
        }
        return {name: value for name, value in limits.items() if value is not None}

    def _hyperparameters_at(
        self, step: int
    ) -> tuple[list[list[float]], tuple[float, float, int], int]:
        """Return a step's numbers, for each group and for all, and the step from which the core asks again.

        The core also asks after every change. So without schedules it need not ask at any step.
        """
        now = self._current.now
        clip_norm = number_at("clip_norm", now.clip_norm, CLIP_NORM, step)
        ema_decay = number_at("ema_decay", now.ema_decay, EMA_DECAY, step)
        scheduled = (
            callable(now.clip_norm)
            or callable(now.ema_decay)
            or any(group.schedules for group in now.groups)
        )
        return (
            [group.at(step) for group in now.groups],
            (clip_norm, ema_decay, NONFINITE.index(now.nonfinite)),
            step + 1 if scheduled else _NEVER,
        )


@documentation.without_quotes
class Settings(Limits, Rule):
    """The settings of every optimizer: hyperparameters of groups, and the settings that all groups share."""

    # This makes optimizer.rate = 0.1, which would have no effect, an error.
    __slots__ = ("_current", "_held")

    lr = Numeric(Interval())
    weight_decay = Numeric(Interval())
    l1 = Numeric(Interval())
    clip_value = NumericOrNone(Interval(low_open=True, finite=False))
    maximize = Flag()
    decoupled_l1 = Flag().absent_as(False)

    def __init__(
        self,
        defaults: Mapping[str, Any],
        clip_norm: Number | None,
        nonfinite: Nonfinite,
        ema_decay: Number | None,
    ) -> None:
        clip_norm = check_number_or_none("clip_norm", clip_norm, CLIP_NORM)
        ema_decay = check_number_or_none("ema_decay", ema_decay, EMA_DECAY)
        nonfinite = checked_nonfinite(nonfinite)
        self._refuse_averages(ema_decay)
        checked = taken(type(self), defaults)  # not the caller's own objects, which may change
        self._current = Current(Values((), clip_norm, ema_decay, nonfinite, checked))
        self._held = Held()

    # ---- reading and setting -------------------------------------------------------------------

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The parameter groups; hyperparameters are read and set as ``param_groups[0]["lr"]``."""
        return self._held.groups

    @property
    def ema_decay(self) -> Number | None:
        """The share of the moving averages that a step keeps; None if there are no averages."""
        return self._current.now.ema_decay

    @ema_decay.setter
    def ema_decay(self, value: Number | None) -> None:
        checked = self._checked_ema_decay(value)
        self._current.change(lambda now: now._replace(ema_decay=checked))

    def __dir__(self) -> list[str]:
        return without_near_misses(type(self), super().__dir__())

    @reprlib.recursive_repr()  # a schedule may lead back here
    def __repr__(self) -> str:
        try:
            groups = self._of_groups()
            values = {name: [group[name] for group in groups] for name in groups[0]}
            told = {n: all_[0] if all_[1:] == all_[:-1] else all_ for n, all_ in values.items()}
            told |= self._extras_in_use() | self._counts()
        except Exception:  # a debugger asks at any time, also before the object is complete
            return super().__repr__()
        text = ", ".join(f"{name}={text_of(value)}" for name, value in told.items())
        return f"{type(self).__name__}({text})"

    def _counts(self) -> dict[str, int]:
        """The number of parameters, and of groups if there are several; for `repr`."""
        counts = {"parameters": sum(len(group.names) for group in self.param_groups)}
        if len(self.param_groups) > 1:
            counts["groups"] = len(self.param_groups)
        return counts

    def _extras_in_use(self) -> dict[str, Any]:
        """Settings that all groups share and that differ from the default; for `repr`."""
        limits = self._limits_in_use()
        order = {"clip_norm": None, "ema_decay": self.ema_decay, **limits}  # clip_norm stays first
        return {name: value for name, value in order.items() if value is not None}

    # ---- checks ------------------------------------------------------------------------------------

    def _checked_ema_decay(self, value: Any) -> Number | None:
        """Check a new value of ema_decay."""
        checked = check_number_or_none("ema_decay", value, EMA_DECAY)
        self._refuse_averages(checked)
        if (checked is None) != (self.ema_decay is None):
            raise ValueError(
                f"ema_decay must stay {'None' if self.ema_decay is None else 'a number'}, got "
                f"{shown(value)}, since averages are made with the optimizer; make a new optimizer"
            )
        return checked

    def _refuse_averages(self, ema_decay: Number | None) -> None:
        """Raise ValueError for averages of a rule that averages the weights itself."""
        if self._shows_iterate and ema_decay is not None:
            raise ValueError(
                f"ema_decay must be None for {type(self).__name__}, got {shown(ema_decay)}; the rule "
                "averages the weights itself, see averaged()"
            )

    def _of_groups(self) -> list[Mapping[str, Any]]:
        """Return the hyperparameters of each group, all of one moment: another thread may set them."""
        return [group.settings for group in self._current.now.groups]

    def _set_in_all_groups(self, name: str, value: Any) -> None:
        """Set a hyperparameter in every group, also in later ones; if one refuses it, set it in none."""
        new = taken(type(self), {name: value})

        def changed(now: Values) -> Values:
            # Without strict=True: another thread may have added groups since `now` was read. `change`
            # then finds other values in place, and does this again.
            pairs = zip(self.param_groups, now.groups, strict=False)
            groups = tuple(group._changed(old, new) for group, old in pairs)
            check_alike(type(self), [values.settings for values in groups])
            return now._replace(groups=groups, defaults={**now.defaults, **new})

        self._current.change(changed)

    def _checked_values(
        self, groups: Sequence[GroupValues], clip_norm: Any, ema_decay: Any
    ) -> Values:
        """Check new values of all hyperparameters; the groups' values have been checked already."""
        check_alike(type(self), [values.settings for values in groups])
        checked = check_number_or_none("clip_norm", clip_norm, CLIP_NORM)
        now = self._current.now
        ema_decay = self._checked_ema_decay(ema_decay)
        return Values(tuple(groups), checked, ema_decay, now.nonfinite, now.defaults)


add_near_misses(Settings)


def number_at(name: str, value: Number | None, interval: Interval, step: int) -> float:
    """Return the number of this step; NaN for None."""
    if callable(value):
        return value_at(name, value, interval, step)
    return math.nan if value is None else value


def checked_nonfinite(value: Any) -> Nonfinite:
    """Return a value of `nonfinite`; raise ValueError for any other value."""
    return word("nonfinite", value, NONFINITE)
