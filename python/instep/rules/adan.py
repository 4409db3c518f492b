"""Adan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric, NumericTriple
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adan"]


class Adan(Optimizer):
    r"""Adan: Adam with Nesterov's momentum, from the difference of successive gradients.

    With the states m, d, n and b, zero at first, at a parameter's t-th step::

        e = g - b                                 0 at a parameter's first step
        m = beta1 * m + (1 - beta1) * g
        d = beta2 * d + (1 - beta2) * e
        n = beta3 * n + (1 - beta3) * (g + beta2 * e)²
        u = m / (1 - beta1^t) + beta2 * d / (1 - beta2^t)
        p = p - lr * u / (sqrt(n) / sqrt(1 - beta3^t) + eps)
        p = p / (1 + lr * weight_decay)
        b = g

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    It is for large batches and large learning rates, at the price of four states.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas : three of float or callable
        Each in [0, 1): the shares that a step keeps of the running mean of the gradient, of the
        running mean of the differences, and of the running mean of the squares. The paper's betas
        are 1 minus these.
    eps
        As for `Adam`.
    weight_decay : float or callable
        At least 0: after the rule, the weight is divided by 1 + lr * weight_decay.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    X. Xie, P. Zhou, H. Li, Z. Lin, S. Yan, "Adan: adaptive Nesterov momentum algorithm for faster
    optimizing deep models", IEEE Transactions on Pattern Analysis and Machine Intelligence, 2024,
    Algorithm 1.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Adan(w, lr=0.5, betas=(0.5, 0.5, 0.75), eps=0.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.5, -1.5])
    >>> optimizer.step(2 * w)
    >>> optimizer.state["0"]["exp_avg_diff"]  # of the differences 0 and -1, 0 and 1
    array([-0.5,  0.5])
    """

    __slots__ = ()

    _rule = "adan"
    _torch = None

    betas = NumericTriple(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number, Number] = (0.98, 0.92, 0.99),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps}
        self._set_up(params, own, weight_decay=weight_decay, **shared)
