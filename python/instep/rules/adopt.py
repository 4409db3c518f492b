"""ADOPT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import (
    Flag,
    Interval,
    Number,
    Numeric,
    NumericOrNone,
    NumericPair,
)
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ADOPT"]


class ADOPT(Optimizer):
    r"""ADOPT: the running mean of gradients that are divided by the root mean square of those before.

    With the states m and v, zero at first, at a parameter's t-th step::

        v = g²                                    at a parameter's first step, which moves nothing

        n = g / max(sqrt(v), eps)                 later
        n = min(max(n, -c), c)                    c = (t - 1)^clip_exponent
        m = beta1 * m + (1 - beta1) * n
        p = p - lr * m
        v = beta2 * v + (1 - beta2) * g²

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    It converges with any beta2, where Adam needs a beta2 that suits the problem.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas
        As for `Adam`.
    eps : float or callable
        At least 0: the least root by which a gradient is divided. With eps = 0 an element whose
        gradients have all been zero becomes NaN.
    clip_exponent : float, callable or None
        At least 0. The divided gradients are limited to [-c, c], c = (t - 1)^clip_exponent. With
        None they are not limited; then a small first gradient may make a long second step.
    decoupled_weight_decay
        As for `SGD`.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    S. Taniguchi, K. Harada, G. Minegishi, Y. Oshima, S. C. Jeong, G. Nagahara, T. Iiyama, M. Suzuki,
    Y. Iwasawa, Y. Matsuo, "ADOPT: modified Adam can converge with any beta2 with the optimal rate",
    NeurIPS 2024, Algorithm 2.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.ADOPT(w, lr=0.25, betas=(0.5, 0.75))
    >>> optimizer.step(2 * w)                # for the states alone
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.875, -1.875])
    """

    __slots__ = ()

    _rule = "adopt"
    _torch = None

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    clip_exponent = NumericOrNone(Interval())
    decoupled_weight_decay = Flag()

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.9999),
        eps: Number = 1e-6,
        clip_exponent: Number | None = 0.25,
        decoupled_weight_decay: bool = False,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "clip_exponent": clip_exponent,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
