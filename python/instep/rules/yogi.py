"""Yogi."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric, NumericPair
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Yogi"]


class Yogi(Optimizer):
    r"""Yogi: Adam whose mean square moves by at most (1 - beta2) * g² in a step.

    With the states m and v, initial_accumulator_value at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        v = v - (1 - beta2) * sign(v - g²) * g²
        p = p - lr / (1 - beta1^t) * m / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    It is for gradients that are rare or that suddenly become small: Adam soon forgets large squares,
    and its steps become long; in Yogi, small gradients hardly change v.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas
        As for `Adam`.
    eps
        As for `Adam`.
    initial_accumulator_value : float or callable
        At least 0: m and v before a parameter's first step.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    M. Zaheer, S. J. Reddi, D. Sachan, S. Kale, S. Kumar, "Adaptive methods for nonconvex
    optimization", NeurIPS 2018, Algorithm 2 (with Adam's corrections, as in optax).

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Yogi(
    ...     w, lr=0.5, betas=(0.5, 0.75), eps=0.0, initial_accumulator_value=0.0
    ... )
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.5, -1.5])
    >>> optimizer.step(w / 2)                # v loses a quarter of the gradient's square
    >>> optimizer.state["0"]["exp_avg_sq"]
    array([0.984375, 3.859375])
    """

    __slots__ = ()

    _rule = "yogi"
    _torch = None

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    initial_accumulator_value = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-3,
        initial_accumulator_value: Number = 1e-6,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "initial_accumulator_value": initial_accumulator_value,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
