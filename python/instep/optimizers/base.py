"""What all optimizers share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from instep import _core
from instep.optimizers.groups import ParamGroup
from instep.optimizers.hyperparameters import Interval, Number, as_float, check_number
from instep.optimizers.parameters import Array, Gradients, Params, name_parameters

__all__ = ["Optimizer"]

_CLIP_NORM = Interval(0.0, low_open=True, finite=False)  # infinity: the norm alone, nothing clipped


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
        state_dtype: npt.DTypeLike | None,
    ) -> None:
        grouped, groups = name_parameters(params)
        self._clip_norm = _checked_clip_norm(clip_norm)
        self.param_groups: list[ParamGroup] = [
            ParamGroup(type(self), group, {**settings, **group.settings}, self._set_hyperparameters)
            for group in groups
        ]
        """The parameter groups; hyperparameters are read and set as ``param_groups[0]["lr"]``."""
        self._plan = _core.Plan(
            [
                (
                    self._rule,
                    group._options,
                    named.kind,
                    named.names if named.kind == "mapping" else (),
                    named.names,
                    named.arrays,
                )
                for group, named in zip(self.param_groups, groups, strict=True)
            ],
            grouped,
            _checked_state_dtype(state_dtype),
        )
        self._params = dict(
            pair for named in groups for pair in zip(named.names, named.arrays, strict=True)
        )
        self._scheduled = False
        self._set_hyperparameters()

    # ---- stepping ------------------------------------------------------------------------------

    def step(self, grads: Gradients) -> None:
        """Change the parameters in place, once, by these gradients.

        Parameters
        ----------
        grads : array, list, tuple or dict
            The gradients in the container the parameters came in (for groups: a list with an entry
            for each group). Each has its parameter's shape, any strides, and one of the dtypes
            float64, float32, float16 and bfloat16, whatever the parameter's. None leaves its
            parameter, the parameter's state and its own step count alone.

        Raises
        ------
        TypeError, ValueError
            If a gradient can't be taken as it is: wrong container, count, keys, shape or dtype,
            misaligned or byte-swapped, or sharing memory with a parameter or a state; if a schedule
            gives no such number as its hyperparameter wants; if a parameter has been reshaped,
            moved or made read-only. Nothing has changed then.

        Notes
        -----
        Threads that step the same optimizer take turns. Long steps release the GIL.
        """
        self._plan.step(grads, self._hyperparameters_at if self._scheduled else None)

    # ---- reading -------------------------------------------------------------------------------

    @property
    def step_count(self) -> int:
        """Completed steps; what schedules are called with."""
        return self._plan.step_count

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

        It is computed where ``clip_norm`` is set. ``clip_norm=math.inf`` computes it and clips
        nothing.
        """
        return self._plan.grad_norm

    @property
    def clip_norm(self) -> Number | None:
        """The limit that the norm of all gradients together is scaled down to; None for no limit."""
        return self._clip_norm

    @clip_norm.setter
    def clip_norm(self, value: Number | None) -> None:
        self._clip_norm = _checked_clip_norm(value)
        self._set_hyperparameters()

    def __repr__(self) -> str:
        settings = ", ".join(
            f"{name}={value!r}" for name, value in self.param_groups[0].items() if name != "params"
        )
        groups = f", groups={len(self.param_groups)}" if len(self.param_groups) > 1 else ""
        return f"{type(self).__name__}({settings}, parameters={len(self._params)}{groups})"

    # ---- hyperparameters -----------------------------------------------------------------------

    def _hyperparameters_at(self, step: int) -> tuple[list[list[float]], float]:
        clip_norm = math.nan
        if callable(self._clip_norm):
            who = f"the schedule of clip_norm at step {step}"
            clip_norm = as_float(self._clip_norm(step), _CLIP_NORM, who)
        elif self._clip_norm is not None:
            clip_norm = self._clip_norm
        return [group._values_at(step) for group in self.param_groups], clip_norm

    def _set_hyperparameters(self) -> None:
        """Hand constant hyperparameters to the core once; schedules are asked at every step."""
        self._scheduled = callable(self._clip_norm) or any(
            group._schedules for group in self.param_groups
        )
        if not self._scheduled:
            self._plan.set_hyperparameters(*self._hyperparameters_at(0))


def _checked_clip_norm(value: Any) -> Number | None:
    return None if value is None else check_number("clip_norm", value, _CLIP_NORM)


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
