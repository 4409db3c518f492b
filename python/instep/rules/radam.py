"""Rectified Adam."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Flag, Interval, Number, Numeric, NumericPair
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RAdam"]


class RAdam(Optimizer):
    r"""Rectified Adam: Adam with shorter first steps, while its mean square has seen few gradients.

    With the states m and v, zero at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g²
        R = 2 / (1 - beta2) - 1
        rho = R - 2 * t * beta2^t / (1 - beta2^t)
        r = sqrt((rho - 4) * (rho - 2) * R / ((R - 4) * (R - 2) * rho))
        p = p - lr * r * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(v) + eps)      rho > 5
        p = p - lr / (1 - beta1^t) * m                                                otherwise

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    It is for runs that diverge with Adam unless the learning rate is warmed up. With the default
    beta2, rho is greater than 5 from the sixth step on.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas
        As for `Adam`.
    eps : float or callable
        At least 0; added to the root, which is not corrected. With eps = 0 an element whose
        gradients have all been zero becomes NaN.
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
    L. Liu, H. Jiang, P. He, W. Chen, X. Liu, J. Gao, J. Han, "On the variance of the adaptive
    learning rate and beyond", ICLR 2020, Algorithm 2 (which has 4 in place of 5).

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.RAdam(w, lr=0.25, betas=(0.5, 0.75))
    >>> optimizer.step(2 * w)                # the first steps don't divide by the root
    >>> w
    array([ 0.5, -1. ])
    >>> optimizer.state["0"]["exp_avg_sq"]
    array([1., 4.])
    """

    __slots__ = ()

    _rule = "radam"
    _torch = InTorch(
        "RAdam",
        hyperparameters=(
            "lr",
            "betas",
            "eps",
            "decoupled_weight_decay",
            "weight_decay",
            "maximize",
        ),
        known_by=(),
        own={"foreach": None, "differentiable": False, "capturable": False},
        absent={},
    )

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    decoupled_weight_decay = Flag()

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
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
