"""What all optimizers share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any, ClassVar
from weakref import WeakMethod

import numpy as np
import numpy.typing as npt

from instep import _core
from instep.optimizers import state
from instep.optimizers.groups import ParamGroup
from instep.optimizers.hyperparameters import Interval, Number, as_float, check_number
from instep.optimizers.parameters import (
    Array,
    Copies,
    Gradients,
    Params,
    match_copies,
    name_parameters,
)

__all__ = ["Optimizer"]

_CLIP_NORM = Interval(0.0, low_open=True, finite=False)  # infinity: the norm alone, nothing clipped
_EMA_DECAY = Interval(0.0, 1.0, high_open=True)
_GRAD_SCALE = Interval(0.0, low_open=True)
_NONFINITE = ("propagate", "skip", "raise")


class _Accumulated(Enum):
    """Stands for the gradients that have been accumulated, where step is given none."""

    GRADIENTS = "accumulated gradients"


class Optimizer:
    """Base of the optimizers; use one of `SGD`, `Momentum`, `RMSprop`, `Adam`, `AdamW`.

    A subclass names its rule in the core and says what its hyperparameters may be. Those of every
    rule (``weight_decay``, ``l1``, ``clip_value``, ``maximize``) are said here.
    """

    _rule: ClassVar[str] = ""
    _decoupled_decay: ClassVar[bool] = (
        False  # weight_decay belongs to the rule, not to the gradient
    )
    _intervals: ClassVar[dict[str, Interval]] = {}
    _pairs: ClassVar[dict[str, Interval]] = {}
    _flags: ClassVar[tuple[str, ...]] = ()
    _core_hyperparameters: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._core_hyperparameters = tuple(
            name for name in _core.rules()[cls._rule]["hyperparameters"]
        )
        cls._intervals = {
            **cls._intervals,
            "lr": Interval(),
            "weight_decay": Interval(),
            "l1": Interval(),
            "clip_value": Interval(low_open=True, finite=False),
        }
        cls._flags = (*dict.fromkeys((*cls._flags, "maximize")),)

    # ---- for subclasses ------------------------------------------------------------------------

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        """Options of the core's rule that these hyperparameters switch on."""
        raise NotImplementedError

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        """Raise ValueError where hyperparameters don't go together."""

    def __init__(
        self,
        params: Params,
        settings: dict[str, Any],
        *,
        clip_norm: Number | None,
        nonfinite: str,
        ema_decay: Number | None,
        copy_to: Copies | None,
        state_dtype: npt.DTypeLike | None,
    ) -> None:
        grouped, groups = name_parameters(params)
        copies = match_copies(copy_to, groups, grouped)
        self._clip_norm, self._ema_decay = self._checked_extras(clip_norm, ema_decay)
        self._nonfinite = _checked_nonfinite(nonfinite)
        self._grouped, self._copy_to = grouped, copy_to
        self._state_dtype = _checked_state_dtype(state_dtype)
        self._param_groups = [
            ParamGroup(
                type(self),
                group,
                {**settings, **group.settings},
                WeakMethod(self._set_hyperparameters),
            )
            for group in groups
        ]
        self._plan = _core.Plan(
            [
                (
                    self._rule,
                    group._options,
                    named.kind,
                    named.names if named.kind == "mapping" else (),
                    named.names,
                    named.arrays,
                    copied,
                )
                for group, named, copied in zip(self.param_groups, groups, copies, strict=True)
            ],
            grouped,
            self._state_dtype,
            ema_decay is not None,
        )
        self._params = dict(
            pair for named in groups for pair in zip(named.names, named.arrays, strict=True)
        )
        self._scheduled = False
        self._set_hyperparameters()

    # ---- stepping ------------------------------------------------------------------------------

    def step(
        self,
        grads: Gradients | _Accumulated = _Accumulated.GRADIENTS,
        *,
        grad_scale: float | None = None,
    ) -> None:
        """Change the parameters in place, once, by these gradients.

        Parameters
        ----------
        grads : array, list, tuple or dict
            The gradients in the container the parameters came in (for groups: a list with an entry
            for each group). Each has its parameter's shape, any strides, and one of the dtypes
            float64, float32, float16 and bfloat16, whatever the parameter's. None leaves its
            parameter, the parameter's state and its own step count alone. What `accumulate` has
            added up is added to them; without grads it is all there is.
        grad_scale : float, optional
            The gradients are multiplied by this finite number greater than 0 inside the sweep: one
            over the scale of the loss, one over the number of accumulated micro-batches.

        Raises
        ------
        TypeError, ValueError
            If a gradient can't be taken as it is: wrong container, count, keys, shape or dtype,
            misaligned or byte-swapped, or sharing memory with a parameter or a state; if a schedule
            gives no such number as its hyperparameter wants; if a parameter has been reshaped,
            moved or made read-only. Nothing has changed then.
        FloatingPointError
            With ``nonfinite="raise"``, if a gradient has an infinity or NaN. Nothing has changed.

        Notes
        -----
        Threads that step the same optimizer take turns. Long steps release the GIL.
        """
        evaluate = self._hyperparameters_at if self._scheduled or self._stale else None
        scale = 1.0 if grad_scale is None else as_float(grad_scale, _GRAD_SCALE, "grad_scale")
        if grads is _Accumulated.GRADIENTS:
            self._plan.step_accumulated(evaluate, scale)
        else:
            self._plan.step(grads, evaluate, scale)

    def accumulate(self, grads: Gradients) -> None:
        """Add the gradients of a micro-batch to those that the next `step` takes.

        The sum is exact to the bit: the first gradient rounded to the arithmetic's type (float64
        for float64 parameters, float32 for the others), each later one rounded and added in that
        type. The next step adds its own gradients, if it is given any, in the same sweep, and the
        sum is then empty again. None leaves a parameter's sum as it is.

        Parameters
        ----------
        grads : array, list, tuple or dict
            As for `step`.

        Raises
        ------
        TypeError, ValueError
            As `step`; nothing has been added then.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.zeros(2)
        >>> optimizer = instep.SGD(w, lr=1.0)
        >>> for batch in ([1.0, 2.0], [3.0, 4.0]):
        ...     optimizer.accumulate(np.array(batch))
        >>> optimizer.step(grad_scale=1 / 2)
        >>> w
        array([-2., -3.])
        """
        self._plan.accumulate(grads)

    def discard_accumulated(self) -> None:
        """Forget what `accumulate` has added up since the last step."""
        self._plan.discard_accumulated()

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving averages in the parameters' place for the length of a ``with`` block.

        For evaluation: the parameters' arrays hold the averages, rounded to their dtypes, inside
        the block, and afterwards what they held before, also when the body raises. `step` refuses
        to run inside. Needs ``ema_decay``.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.zeros(1)
        >>> optimizer = instep.SGD(w, lr=1.0, ema_decay=0.75)
        >>> optimizer.step(np.array([-4.0]))
        >>> with optimizer.averaged():
        ...     print(w)
        [1.]
        >>> w
        array([4.])
        """
        if self._ema_decay is None:
            raise ValueError(
                "there are no averages; ema_decay is wanted when the optimizer is made"
            )
        with self._between_steps():
            if self._plan.suspended:
                raise RuntimeError("averaged() is in use already; its blocks can't be nested")
            averages = self._plan.averages
            weights = {name: param.copy() for name, param in self._params.items()}
            self._plan.suspended = True
            for name, param in self._params.items():
                param[...] = averages[name]
        try:
            yield
        finally:
            with self._between_steps():
                self._plan.suspended = False
                for name, param in self._params.items():
                    param[...] = weights[name]

    @contextmanager
    def _between_steps(self) -> Iterator[None]:
        """Keep steps on other threads waiting meanwhile: no array changes half-way."""
        self._plan.acquire()
        try:
            yield
        finally:
            self._plan.release()

    # ---- reading -------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed steps; what schedules are called with."""
        return self._plan.step_count

    @property
    def param_groups(self) -> tuple[ParamGroup, ...]:
        """The parameter groups; hyperparameters are read and set as ``param_groups[0]["lr"]``."""
        return tuple(self._param_groups)

    @property
    def params(self) -> dict[str, Array]:
        """The parameters by name: the arrays given, not copies."""
        return dict(self._params)

    @property
    def state(self) -> dict[str, dict[str, Array]]:
        """The states, by parameter's name and state's name: the arrays in use, not copies.

        They go by the names that PyTorch gives them, such as ``exp_avg``.
        """
        return self._plan.states

    @property
    def grad_norm(self) -> float | None:
        """Euclidean norm of all gradients of the last step, before clipping; None without one.

        It is computed where ``clip_norm`` is set, or ``nonfinite`` is "skip" or "raise".
        ``clip_norm=math.inf`` computes it and clips nothing.
        """
        return self._plan.grad_norm

    @property
    def clip_norm(self) -> Number | None:
        """The limit that the norm of all gradients together is scaled down to; None for no limit."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: Number | None) -> None:
        self._clip_norm = _checked_or_none("clip_norm", value, _CLIP_NORM)
        self._set_hyperparameters()

    @property
    def lr(self) -> Number:
        """The learning rate of all groups; setting it sets it for all.

        Reading raises ValueError where groups differ: read ``param_groups[k]["lr"]`` then.
        """
        first, *others = (group["lr"] for group in self.param_groups)
        if any(other != first for other in others):
            raise ValueError("the groups' lr differ; read each as param_groups[k]['lr']")
        rate: Number = first
        return rate

    @lr.setter
    def lr(self, value: Number) -> None:
        check_number("lr", value, self._intervals["lr"])  # so that all groups take it, or none
        for group in self.param_groups:
            group["lr"] = value

    @property
    def skipped_steps(self) -> int:
        """Steps that changed nothing, because a gradient was not finite under ``nonfinite="skip"``."""
        return self._plan.skipped_steps

    @property
    def nonfinite(self) -> str:
        """What happens where a gradient is infinite or NaN: "propagate", "skip" or "raise"."""
        return self._nonfinite

    @property
    def averages(self) -> dict[str, Array]:
        """The moving averages by parameter's name: the arrays in use, empty without ``ema_decay``."""
        return self._plan.averages

    @property
    def accumulated(self) -> dict[str, Array]:
        """What `accumulate` has added up so far, by parameter's name: the arrays in use."""
        return self._plan.accumulated

    # ---- saving --------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs besides the parameters, as plain data.

        Returns
        -------
        dict
            ``schema`` (version of this layout), ``rule``, ``step_count``, ``skipped_steps``,
            ``clip_norm``, ``ema_decay``; ``param_groups``, each with its names under ``params`` and
            its hyperparameters (schedules as their ``to_dict()``, other callables by name only);
            ``steps`` (parameter -> its own count) and, as copies, ``state`` (parameter -> state ->
            array), ``averages`` and ``accumulated`` (parameter -> array).
        """
        with self._between_steps():
            return state.state_dict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned, to the bit, once the parameters are the same.

        The optimizer must have been made of the same rule for parameters of the same names, shapes
        and dtypes. Hyperparameters are loaded too; a callable that is no schedule of instep's can't
        be, and has to be there already.

        Raises
        ------
        TypeError, ValueError
            If anything doesn't fit; nothing has changed then.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.ones(3)
        >>> first = instep.Adam(w, lr=0.1)
        >>> first.step(w.copy())
        >>> second = instep.Adam(w.copy(), lr=0.5)
        >>> second.load_state_dict(first.state_dict())
        >>> second.step_count, second.lr
        (1, 0.1)
        """
        with self._between_steps():
            state.load_state_dict(self, state_dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy with states and parameters (which ``copy.copy`` alone shares)."""
        if self._plan.suspended:
            raise RuntimeError(
                "inside averaged() the parameters are averages; copy after the block"
            )
        groups = [{"params": g.params, **g._settings} for g in self.param_groups]
        arguments = {
            "clip_norm": self._clip_norm,
            "nonfinite": self._nonfinite,
            "ema_decay": self._ema_decay,
            "copy_to": self._copy_to,
            "state_dtype": self._state_dtype,
        }
        with self._between_steps():
            counts = (self.step_count, self.skipped_steps)
            arrays = state.arrays_and_steps(self)
        return _rebuilt, (type(self), groups, self._grouped, arguments, counts, arrays)

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{name}={value!r}" for name, value in self.param_groups[0].items() if name != "params"
        )
        groups = f", groups={len(self.param_groups)}" if len(self.param_groups) > 1 else ""
        return f"{type(self).__name__}({settings}, parameters={len(self._params)}{groups})"

    # ---- hyperparameters -----------------------------------------------------------------------

    def _hyperparameters_at(self, step: int) -> tuple[list[list[float]], tuple[float, float, int]]:
        self._stale = False  # first: what a schedule changes is for the next step
        clip_norm = _value_at("clip_norm", self._clip_norm, _CLIP_NORM, step)
        ema_decay = _value_at("ema_decay", self._ema_decay, _EMA_DECAY, step)
        return (
            [group._values_at(step) for group in self.param_groups],
            (clip_norm, ema_decay, _NONFINITE.index(self._nonfinite)),
        )

    @staticmethod
    def _checked_extras(clip_norm: Any, ema_decay: Any) -> tuple[Number | None, Number | None]:
        """Check values of what all groups share."""
        return (
            _checked_or_none("clip_norm", clip_norm, _CLIP_NORM),
            _checked_or_none("ema_decay", ema_decay, _EMA_DECAY),
        )

    def _set_hyperparameters(self) -> None:
        """Have the next step ask for all numbers: constants once, schedules at every step."""
        self._scheduled = (
            callable(self._clip_norm)
            or callable(self._ema_decay)
            or any(group._schedules for group in self.param_groups)
        )
        self._stale = True


def _rebuilt(
    cls: type[Optimizer],
    groups: list[dict[str, Any]],
    grouped: bool,
    arguments: dict[str, Any],
    counts: tuple[int, int],
    arrays: dict[str, Any],
) -> Optimizer:
    """Make an optimizer again of what __reduce__ took apart."""
    make: Any = cls
    optimizer: Optimizer
    if grouped:
        optimizer = make(groups, **arguments)
    else:
        settings = dict(groups[0])
        optimizer = make(settings.pop("params"), **settings, **arguments)
    with optimizer._between_steps():
        state.restore(optimizer, *counts, arrays)
    return optimizer


def _value_at(name: str, value: Number | None, interval: Interval, step: int) -> float:
    """The number of this step; NaN for None."""
    if callable(value):
        return as_float(value(step), interval, f"the schedule of {name} at step {step}")
    return math.nan if value is None else value


def _checked_or_none(name: str, value: Any, interval: Interval) -> Number | None:
    return None if value is None else check_number(name, value, interval)


def _checked_nonfinite(value: object) -> str:
    if value not in _NONFINITE:
        raise ValueError(f"nonfinite is {value!r}; one of {', '.join(_NONFINITE)} is wanted")
    return str(value)


def _checked_state_dtype(dtype: npt.DTypeLike | None) -> np.dtype[Any] | None:
    if dtype is None:
        return None
    if isinstance(dtype, str) and dtype == "bfloat16":
        try:
            from ml_dtypes import bfloat16  # noqa: PLC0415 - an extra, for those who use it
        except ImportError:
            raise ImportError(
                "state_dtype='bfloat16' needs the package ml_dtypes: pip install 'instep[bfloat16]'"
            ) from None
        dtype = bfloat16
    return np.dtype(dtype)
