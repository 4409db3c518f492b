"""Dynamic loss scaling, for gradients in float16."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep._support import documentation
from instep._support.wording import difference, kind, shown
from instep.optimizers.containers import GRADIENTS
from instep.optimizers.hyperparameters import Interval, as_float
from instep.optimizers.require import require_optimizer

if TYPE_CHECKING:
    from instep.optimizers import Optimizer
    from instep.optimizers.containers import Accumulated, Gradients

__all__ = ["LossScaler"]

# Gradients that are NaN at any scale must not drive it to zero, nor zero ones to infinity.
_SCALE = Interval(2.0**-24, 2.0**100)


@documentation.without_quotes
class LossScaler:
    """A factor for the loss that keeps small float16 gradients from vanishing.

    Multiply the loss, or the gradient that goes back from it, by `scale`; `step` divides the
    gradients by it inside the sweep. When a gradient is not finite the step is skipped and the scale
    halved; after 2,000 good steps in a row it is doubled.

    Parameters
    ----------
    scale : float
        To begin with; from 2^-24 to 2^100, which it never leaves.
    growth_interval : int
        Good steps in a row after which the scale is doubled; at least 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is out of its range.

    References
    ----------
    P. Micikevicius et al., "Mixed precision training", ICLR 2018.

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
    """

    # So that scaler.factor = 2, which would set nothing, is an error.
    __slots__ = ("__weakref__", "_good_steps", "_growth_interval", "_scale")

    def __init__(self, scale: float = 2.0**16, *, growth_interval: int = 2000) -> None:
        self._scale = as_float(scale, _SCALE, "scale")
        self._growth_interval = _whole("growth_interval", growth_interval, 1)
        self._good_steps = 0

    @property
    def scale(self) -> float:
        """What to multiply the loss by now."""
        return self._scale

    def step(self, optimizer: Optimizer, grads: Gradients | Accumulated = GRADIENTS) -> bool:
        """Take a step with gradients of the scaled loss; return whether it was taken, not skipped.

        As `Optimizer.step`, with what `Optimizer.accumulate` has added up, or with that alone; it
        has to be scaled, too. `scale` changes in here only, so all micro-batches have the same.

        Raises
        ------
        TypeError
            If the first argument is no optimizer.
        ValueError
            If the optimizer was not made with ``nonfinite="skip"``; and what its step raises.
        """
        require_optimizer(optimizer, "scaler.step(optimizer, grads)")
        if optimizer.nonfinite != "skip":
            raise ValueError(
                f"the optimizer has nonfinite={optimizer.nonfinite!r}; 'skip' is wanted, or a step "
                "with an infinite gradient would be taken"
            )
        skipped = optimizer.skipped_steps
        optimizer.step(grads, grad_scale=1.0 / self._scale)
        if optimizer.skipped_steps != skipped:
            self._scale = max(self._scale / 2, _SCALE.low)
            self._good_steps = 0
            return False
        self._good_steps += 1
        if self._good_steps == self._growth_interval:
            self._scale = min(self._scale * 2, _SCALE.high)
            self._good_steps = 0
        return True

    def state_dict(self) -> dict[str, Any]:
        """Return scale, growth_interval and good_steps, as JSON could hold them."""
        return {
            "scale": self._scale,
            "growth_interval": self._growth_interval,
            "good_steps": self._good_steps,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` returned. Raises ValueError or TypeError, changing nothing."""
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"the state is {kind(state_dict)}; a dict is wanted")
        if set(state_dict) != set(self.state_dict()):
            raise ValueError(
                f"the keys of the state are not those wanted; {difference(state_dict, self.state_dict())}"
            )
        scale = as_float(state_dict["scale"], _SCALE, "scale")
        interval = _whole("growth_interval", state_dict["growth_interval"], 1)
        good_steps = _whole("good_steps", state_dict["good_steps"], 0)
        self._scale, self._growth_interval, self._good_steps = scale, interval, good_steps

    def __repr__(self) -> str:
        return f"LossScaler(scale={self._scale!r}, growth_interval={self._growth_interval!r})"


def _whole(name: str, value: object, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise ValueError(f"{name} is {shown(value)}; a whole number of at least {least} is wanted")
    return int(value)
