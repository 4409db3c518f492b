"""Dynamic loss scaling, for gradients in float16."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from instep._support import documentation
from instep._support.archives import refuse_archive
from instep._support.checks import flag, mapping, require_keys
from instep._support.rounding import rounded
from instep._support.wording import shown
from instep.optimizers.containers import GRADIENTS
from instep.optimizers.hyperparameters import Interval, as_float
from instep.optimizers.require import require_optimizers

if TYPE_CHECKING:
    from instep.optimizers import Combined, Optimizer
    from instep.optimizers.containers import Accumulated, Gradients

__all__ = ["LossScaler"]

# Gradients that are NaN at any scale must not lower the scale to zero, and zero gradients must not
# raise it to infinity.
_LEAST, _LARGEST = 2.0**-24, 2.0**100
_SCALE = Interval(_LEAST, _LARGEST)
_GROWTH = Interval(1.0, low_open=True)
_BACKOFF = Interval(0.0, 1.0, low_open=True, high_open=True)

# The keys of an earlier version's state. The other values were fixed then, at the present defaults.
_FIRST_KEYS = ("scale", "growth_interval", "good_steps")
_KEYS = (*_FIRST_KEYS, "growth_factor", "backoff_factor", "min_scale", "max_scale", "pending")


@documentation.without_quotes
class LossScaler:
    """A factor for the loss that keeps small float16 gradients from vanishing.

    Multiply the loss, or the gradient with which backpropagation starts, by `scale`. `step` divides
    the gradients by the scale inside the sweep, and skips a step with a gradient that isn't finite.
    Then, once for each loss, the scale changes::

        scale = max(scale * backoff_factor, min_scale)    a gradient was not finite
        scale = min(scale * growth_factor, max_scale)     the growth_interval-th good loss in a row

    Each product is rounded once to float64. With factors that are powers of two, as by default,
    every scale is the first scale times an exact power of two, except at the limits.

    Parameters
    ----------
    scale : float
        The first scale, from `min_scale` to `max_scale`.
    growth_interval : int
        Good losses in a row after which the scale grows; at least 1.
    growth_factor : float
        Greater than 1.
    backoff_factor : float
        In (0, 1).
    min_scale, max_scale : float
        Limits of the scale; each is from 2^-24 to 2^100.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    References
    ----------
    P. Micikevicius et al., "Mixed precision training", ICLR 2018. The protocol for several
    optimizers is that of ``torch.amp.GradScaler``.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.zeros(2, np.float32)
    >>> optimizer = instep.SGD(w, lr=1.0, nonfinite="skip")
    >>> scaler = instep.LossScaler(scale=4.0)
    >>> scaler.step(optimizer, scaler.scale * np.array([1.0, 2.0]))
    True
    >>> w
    array([-1., -2.], dtype=float32)
    >>> scaler.step(optimizer, np.array([np.inf, 0.0]))
    False
    >>> scaler.scale
    2.0

    With accumulated gradients, here the mean over two micro-batches:

    >>> for batch in ([1.0, 2.0], [3.0, 4.0]):
    ...     optimizer.accumulate(scaler.scale / 2 * np.array(batch))
    >>> scaler.step(optimizer)
    True
    >>> w
    array([-3., -5.], dtype=float32)

    With two optimizers for one loss, the scale changes when both have been stepped:

    >>> v = np.zeros(1, np.float32)
    >>> other = instep.Adam(v, lr=0.5, nonfinite="skip")
    >>> scaler.step(optimizer, np.array([np.inf, 0.0]), update=False)
    False
    >>> scaler.step(other, scaler.scale * np.ones(1), update=False)
    True
    >>> scaler.scale
    2.0
    >>> scaler.update()
    >>> scaler.scale
    1.0
    """

    # This makes scaler.factor = 2, which would have no effect, an error.
    __slots__ = (
        "__weakref__",
        "_backoff_factor",
        "_good_steps",
        "_growth_factor",
        "_growth_interval",
        "_max_scale",
        "_min_scale",
        "_pending",
        "_scale",
        "_stepped",
    )

    _scale: float
    _min_scale: float
    _max_scale: float
    _growth_factor: float
    _backoff_factor: float
    _growth_interval: int
    _good_steps: int
    _pending: bool | None  # whether all steps since the last update were taken
    _stepped: WeakSet[Optimizer | Combined]  # the optimizers stepped since then

    def __init__(
        self,
        scale: float = 2.0**16,
        *,
        growth_interval: int = 2000,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        min_scale: float = _LEAST,
        max_scale: float = _LARGEST,
    ) -> None:
        self._stepped = WeakSet()
        self._set(
            {
                "scale": scale,
                "growth_interval": growth_interval,
                "good_steps": 0,
                "growth_factor": growth_factor,
                "backoff_factor": backoff_factor,
                "min_scale": min_scale,
                "max_scale": max_scale,
                "pending": None,
            }
        )

    @property
    def scale(self) -> float:
        """The number by which to multiply the loss now."""
        return self._scale

    def step(
        self,
        optimizer: Optimizer | Combined,
        grads: Gradients | Accumulated = GRADIENTS,
        *,
        update: bool = True,
    ) -> bool:
        """Take a step with gradients of the scaled loss; return True if it was taken, False if it was skipped.

        The step is that of `Optimizer.step`. It adds the gradients that `Optimizer.accumulate` has
        added up, or uses only these; the accumulated gradients must be scaled, too. `scale` changes
        only here and in `update`, so all micro-batches of a step have the same scale. A step
        without any gradient says nothing about the scale, and isn't counted.

        Parameters
        ----------
        optimizer : Optimizer or Combined
            Made with ``nonfinite="skip"``.
        grads : array, list, tuple or dict
            As for its own `step`.
        update : bool
            Call `update` after the step. If several optimizers share one loss, pass False, and call
            `update` after the step of the last one. Otherwise the first step changes the scale, but
            the gradients of the next optimizer still have the old scale.

        Raises
        ------
        TypeError
            If the first argument is not an optimizer, or `update` is neither True nor False.
        ValueError
            If the optimizer was not made with ``nonfinite="skip"``; also the errors of its step.
        RuntimeError
            If this optimizer has already been stepped since the last update: these gradients are of
            another loss, so `update` should have been called before.
        """
        require_optimizers(optimizer, "scaler.step(optimizer, grads)")
        flag("update", update)
        if optimizer.nonfinite != "skip":
            raise ValueError(
                f"nonfinite of the optimizer must be 'skip', got {optimizer.nonfinite!r}; set "
                "optimizer.nonfinite = 'skip'"
            )
        if optimizer in self._stepped:
            raise RuntimeError(
                "an optimizer must be stepped once between two updates, got a second step; call "
                "update() once for each loss, after the steps of all its optimizers"
            )
        counts = grads is GRADIENTS or _has_any(grads) or bool(optimizer.accumulated)
        skipped = optimizer.skipped_steps
        optimizer.step(grads, grad_scale=rounded(operator.truediv, 1.0, self._scale))
        taken = optimizer.skipped_steps == skipped
        if getattr(optimizer._plan, "any_gradient", counts):  # on any rank, if there are ranks
            self._pending = taken and self._pending is not False
            self._stepped.add(optimizer)
        if update:
            self.update()
        return taken

    def update(self) -> None:
        """Update the scale from the results of all steps since the last update.

        If any of these steps was skipped, the scale is multiplied by `backoff_factor`; otherwise
        they count as one good loss. If there was no step, or no step had a gradient, nothing
        changes.
        """
        self._stepped.clear()
        pending, self._pending = self._pending, None
        if pending is None:
            return
        if not pending:
            self._scale = max(
                rounded(operator.mul, self._scale, self._backoff_factor), self._min_scale
            )
            self._good_steps = 0
            return
        self._good_steps += 1
        if self._good_steps >= self._growth_interval:
            self._scale = min(
                rounded(operator.mul, self._scale, self._growth_factor), self._max_scale
            )
            self._good_steps = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the arguments with the present scale, and the counts, in a form that JSON can hold.

        Returns
        -------
        dict
            ``scale``, ``growth_interval``, ``good_steps`` (good losses since the scale last
            changed), ``growth_factor``, ``backoff_factor``, ``min_scale``, ``max_scale``, and
            ``pending``: whether all steps since the last update were taken, None if no step counts.
        """
        return {
            "scale": self._scale,
            "growth_interval": self._growth_interval,
            "good_steps": self._good_steps,
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "min_scale": self._min_scale,
            "max_scale": self._max_scale,
            "pending": self._pending,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned, in this or an earlier version.

        A state of the earlier version has only the first three keys; all other values become the
        defaults, as they were then. If the state has more good steps than ``growth_interval``, the
        scale grows at the next good step.

        Raises
        ------
        TypeError, ValueError
            If a key is missing or unknown, or a value has the wrong type or is out of its range;
            nothing has changed then.
        """
        refuse_archive(state_dict, "growth_interval")
        if set(mapping("the state", state_dict)) == set(_FIRST_KEYS):
            state_dict = {**LossScaler().state_dict(), **state_dict}
        require_keys("the state", state_dict, _KEYS)
        self._set(state_dict)
        self._stepped.clear()

    def _set(self, state_dict: Mapping[str, Any]) -> None:
        """Check all values of a state, and then set them."""
        least, largest = (as_float(state_dict[k], _SCALE, k) for k in ("min_scale", "max_scale"))
        if least > largest:
            raise ValueError(f"min_scale must be at most max_scale={largest!r}, got {least!r}")
        scale = as_float(state_dict["scale"], Interval(least, largest), "scale")
        interval = _whole("growth_interval", state_dict["growth_interval"], 1)
        good_steps = _whole("good_steps", state_dict["good_steps"], 0)
        growth = as_float(state_dict["growth_factor"], _GROWTH, "growth_factor")
        backoff = as_float(state_dict["backoff_factor"], _BACKOFF, "backoff_factor")
        pending = state_dict["pending"]
        if pending is not None and not isinstance(pending, bool):
            raise TypeError(f"pending must be True, False or None, got {shown(pending)}")
        self._scale, self._min_scale, self._max_scale = scale, least, largest
        self._growth_interval, self._good_steps = interval, good_steps
        self._growth_factor, self._backoff_factor = growth, backoff
        self._pending = pending

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy by the state. It doesn't contain the optimizers that were stepped since the last update."""
        return type(self), (), self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state)

    def __repr__(self) -> str:
        others = {
            "growth_factor": (self._growth_factor, 2.0),
            "backoff_factor": (self._backoff_factor, 0.5),
            "min_scale": (self._min_scale, _LEAST),
            "max_scale": (self._max_scale, _LARGEST),
        }
        more = "".join(f", {k}={now!r}" for k, (now, usual) in others.items() if now != usual)
        return f"LossScaler(scale={self._scale!r}, growth_interval={self._growth_interval!r}{more})"


def _has_any(grads: Any) -> bool:
    """Tell whether there is a gradient among the entries of a container."""
    if isinstance(grads, Mapping):
        grads = list(grads.values())
    return any(map(_has_any, grads)) if isinstance(grads, (list, tuple)) else grads is not None


def _whole(name: str, value: Any, least: int) -> int:
    is_int = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not (is_int and least <= value <= 2**53):
        raise ValueError(f"{name} must be a whole number from {least} to 2**53, got {shown(value)}")
    return int(value)
