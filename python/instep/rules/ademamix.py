"""AdEMAMix."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric, NumericTriple
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AdEMAMix"]


class AdEMAMix(Optimizer):
    r"""AdEMAMix: AdamW with a second running mean of the gradient, which forgets slowly.

    With the states a, b and v, zero at first, at a parameter's t-th step::

        p = p * (1 - lr * weight_decay)
        a = beta1 * a + (1 - beta1) * g
        b = beta3 * b + (1 - beta3) * g
        v = beta2 * v + (1 - beta2) * g²
        p = p - lr * (a / (1 - beta1^t) + alpha * b) / (sqrt(v) / sqrt(1 - beta2^t) + eps)

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    It is for long runs: the slow mean uses gradients of thousands of steps ago. The paper warms
    alpha and beta3 up; here the warm-ups are schedules. For alpha it is
    ``schedules.Linear(0.0, alpha, steps)``; for beta3, whose half-life should grow evenly, it is
    ``schedules.HalfLife(beta1, beta3, steps)``.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas : three of float or callable
        Each in [0, 1): the shares that a step keeps of the fast mean of the gradient, of the running
        mean of its square, and of the slow mean of the gradient.
    alpha : float or callable
        At least 0: the weight of the slow mean.
    eps
        As for `Adam`.
    weight_decay
        As for `AdamW`.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    M. Pagliardini, P. Ablin, D. Grangier, "The AdEMAMix optimizer: better, faster, older", ICLR
    2025, Algorithm 1.

    Examples
    --------
    >>> import numpy as np, instep
    >>> from instep import schedules
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.AdEMAMix(w, lr=0.25, betas=(0.5, 0.75, 0.5), alpha=1.0, eps=0.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.625, -1.625])
    >>> optimizer.alpha = schedules.Linear(0.0, 2.0, steps=1000)
    >>> optimizer.current("alpha")           # of the second step
    0.002
    """

    __slots__ = ()

    _rule = "ademamix"
    _torch = None
    _decoupled_decay = True

    betas = NumericTriple(Interval(0.0, 1.0, high_open=True))
    alpha = Numeric(Interval())
    eps = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number, Number] = (0.9, 0.999, 0.9999),
        alpha: Number = 2.0,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "betas": betas, "alpha": alpha, "eps": eps}
        self._set_up(params, own, weight_decay=weight_decay, **shared)
