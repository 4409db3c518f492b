"""The one schedule that depends on the progress of the training, not on the step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from instep._support import documentation
from instep._support.checks import require_keys
from instep._support.reals import is_real
from instep._support.wording import kind, shown
from instep.schedules.base import Schedule
from instep.schedules.checks import (
    count,
    non_negative,
    number,
    one_of,
    optional_number,
    proper_fraction,
)
from instep.schedules.writing import later_argument


class _Progress(NamedTuple):
    """A summary of the metrics that a `ReduceOnPlateau` has seen."""

    best: float | None = None
    bad: int = 0
    cooldown: int = 0
    reductions: int = 0


@documentation.without_quotes
@dataclass(frozen=True, eq=False, repr=False)
class ReduceOnPlateau(Schedule):
    """A value that is reduced whenever a metric has stopped improving.

    ``f(t) = max(init * factor**n, end)`` after n reductions, at any step t. Call `observe` with the
    metric, such as the validation loss, after every epoch. A metric is an improvement if it differs
    from the best metric so far, in the right direction, by more than ``threshold * abs(best)``, or
    by more than ``threshold`` if `threshold_mode` is "abs". When more than `patience` metrics in a
    row are no improvement, the value is reduced. The next `cooldown` metrics don't count as bad.

    A metric that is NaN or infinite is never an improvement and never the best.

    Parameters
    ----------
    init : float
        Value before the first reduction, in the hyperparameter's unit.
    factor : float
        Factor of the value at every reduction, > 0 and < 1.
    patience : int
        So many metrics in a row without improvement don't yet reduce the value; 0 or more.
    threshold : float
        An improvement must be greater than this; >= 0. It is a fraction of the best metric, or in
        the metric's unit; see `threshold_mode`.
    mode : {"min", "max"}
        Whether the metric should fall or rise.
    cooldown : int
        Metrics after a reduction that don't count as bad; 0 or more.
    end : float
        Lower bound of the value, at most `init`.
    threshold_mode : {"rel", "abs"}
        Whether the threshold is relative to the best metric or absolute.

    Raises
    ------
    ValueError
        If an argument is out of its range, or `mode` or `threshold_mode` unknown.
    TypeError
        If an argument is of the wrong type.

    Notes
    -----
    Source: none; the rule of PyTorch's ``ReduceLROnPlateau``, but without its ``eps``, and with
    ``abs(best)`` for a relative threshold, since a metric may be negative.

    The arguments are frozen, but `observe` changes the state. If an optimizer that holds this
    schedule loads a stored schedule into the same place, this object takes over the stored
    arguments and state: keep the object, and go on calling `observe`. Two schedules are equal if
    their arguments and their states are equal; `repr` shows only the arguments, and all have the
    same hash.

    Examples
    --------
    >>> from instep.schedules import ReduceOnPlateau
    >>> f = ReduceOnPlateau(0.5, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0):
    ...     f.observe(loss)
    >>> f(40)
    0.25
    """

    init: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 1e-4
    mode: str = "min"
    cooldown: int = 0
    end: float = 0.0
    threshold_mode: str = later_argument("rel")
    _progress: _Progress = field(default=_Progress(), init=False)

    def __post_init__(self) -> None:
        """Check the arguments."""
        self._check(
            init=number,
            factor=proper_fraction,
            patience=count,
            threshold=non_negative,
            mode=one_of(("min", "max")),
            cooldown=count,
            end=number,
            threshold_mode=one_of(("rel", "abs")),
        )
        if self.end > self.init:
            raise ValueError(
                f"ReduceOnPlateau: end must be <= init={self.init!r}, got {self.end!r}"
            )

    def __hash__(self) -> int:
        """Hash the class alone: loading may change the arguments."""
        return hash(type(self))

    def __getstate__(self) -> dict[str, Any]:
        """Return the content of pickles and copies: arguments and state in plain types."""
        return {**vars(self), "_progress": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _progress=_Progress(**state["_progress"]))

    def _value(self, t: float) -> float:
        reduced: float = self.init * self.factor**self._progress.reductions
        return max(reduced, self.end)

    def observe(self, metric: float) -> None:
        """Take one metric into account, and reduce the value if it is time.

        Parameters
        ----------
        metric : float
            A number, or an object that converts to a number, such as a NumPy scalar or an array of
            no dimensions.

        Raises
        ------
        TypeError
            If `metric` doesn't convert to a float.
        """
        try:
            if not is_real(metric):
                raise TypeError
            value = float(metric)
        except TypeError:
            raise TypeError(
                f"ReduceOnPlateau: metric must be a number, got {shown(metric)}"
            ) from None
        best, bad, cooldown, reductions = self._progress
        if self._improves(value):
            best, bad = value, 0
        else:
            bad += 1
        if cooldown > 0:
            cooldown -= 1
            bad = 0
        if bad > self.patience:
            bad, cooldown, reductions = 0, self.cooldown, reductions + 1
        self._keep("_progress", _Progress(best, bad, cooldown, reductions))

    def _improves(self, metric: float) -> bool:
        if not math.isfinite(metric):
            return False
        best = self._progress.best
        if best is None:
            return True
        margin = self.threshold * abs(best) if self.threshold_mode == "rel" else self.threshold
        return metric < best - margin if self.mode == "min" else metric > best + margin

    def state_dict(self) -> dict[str, Any]:
        """Return the state after the metrics so far, in JSON types.

        Returns
        -------
        dict
            "best": the best metric, None before the first; "bad": the number of metrics in a row
            without an improvement; "cooldown": the number of coming metrics that don't count as
            bad; "reductions": how often the value was reduced.
        """
        return self._progress._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a state that `state_dict` returned; change nothing if it isn't valid.

        Raises
        ------
        ValueError
            If a field is unknown, missing or out of its range.
        TypeError
            If `state` isn't a dict, or a field has the wrong type.
        """
        if not isinstance(state, dict):
            raise TypeError(f"ReduceOnPlateau: state must be a dict, got {kind(state)}")
        where = "ReduceOnPlateau: state"
        require_keys(where, state, _Progress._fields, "fields")
        new = _Progress(
            best=optional_number(f"{where}['best']", state["best"]),
            bad=count(f"{where}['bad']", state["bad"]),
            cooldown=count(f"{where}['cooldown']", state["cooldown"]),
            reductions=count(f"{where}['reductions']", state["reductions"]),
        )
        for name, most in (("bad", self.patience), ("cooldown", self.cooldown)):
            if getattr(new, name) > most:
                raise ValueError(f"{where}[{name!r}] must be <= {most}, got {getattr(new, name)}")
        self._keep("_progress", new)

    def _take_over(self, other: ReduceOnPlateau) -> None:
        for argument in fields(self):
            self._keep(argument.name, getattr(other, argument.name))
