"""AdaBelief."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Flag, Interval, Number, Numeric, NumericPair
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["AdaBelief"]


class AdaBelief(Optimizer):
    r"""AdaBelief: the running mean of the gradient, divided by the gradient's deviation from this mean.

    With the states m and s, zero at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        s = beta2 * s + (1 - beta2) * (g - m)² + eps
        p = p - lr / (1 - beta1^t) * m / (sqrt(s) / sqrt(1 - beta2^t) + eps)

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    Its steps are long where the gradients agree with their mean, and short where they don't.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas : pair of float or callable
        Each in [0, 1): the shares that a step keeps of the running mean of the gradient, and of the
        running mean of the squared deviation.
    eps : float or callable
        At least 0; added to the mean square in each step, and to the corrected root. With eps = 0
        an element whose gradients have all been zero becomes NaN.
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
    J. Zhuang, T. Tang, Y. Ding, S. Tatikonda, N. Dvornek, X. Papademetris, J. Duncan, "AdaBelief
    optimizer: adapting stepsizes by the belief in observed gradients", NeurIPS 2020, Algorithm 2.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.AdaBelief(w, lr=0.25, betas=(0.5, 0.75), eps=0.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.5, -1.5])
    >>> optimizer.state["0"]["exp_avg_var"]  # of the deviations 1 and -2
    array([0.25, 1.  ])
    """

    __slots__ = ()

    _rule = "adabelief"
    _torch = None

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    decoupled_weight_decay = Flag()

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-16,
        decoupled_weight_decay: bool = False,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
