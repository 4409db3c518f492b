"""NAdam."""

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
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["NAdam"]


class NAdam(Optimizer):
    r"""NAdam: Adam with Nesterov's momentum.

    With the states m and v, zero at first, and P, 1 at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g²
        mu = beta1 * (1 - 0.96^(t * momentum_decay) / 2),  mu' the same with t + 1
        P = P * mu
        d = sqrt(v) / sqrt(1 - beta2^t) + eps
        p = p - (lr * (1 - mu) / (1 - P) * g + lr * mu' / (1 - P * mu') * m) / d

    With ``momentum_decay=None``, the form of AlgoPerf and timm, there is no P, and the last line is::

        p = p - lr / (1 - beta1^t) * ((1 - beta1) * g + beta1 * m) / d

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    Parameters
    ----------
    params, lr, betas, eps
        As for `Adam`.
    momentum_decay : float, callable or None
        At least 0: how fast mu grows from beta1 / 2 to beta1. With None, it is beta1 from the start.
    decoupled_weight_decay : bool
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
    T. Dozat, "Incorporating Nesterov momentum into Adam", ICLR workshop, 2016, Algorithm 8.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.NAdam(w, lr=0.5, eps=0.0, momentum_decay=None)
    >>> optimizer.step(2 * w)                # the first step is 1 + beta1 times lr / (1 + beta1)
    >>> w.round(3)
    array([ 0.05, -1.05])
    >>> optimizer = instep.NAdam(w)
    >>> optimizer.step(2 * w)
    >>> float(optimizer.state["0"]["mu_product"].round(4))
    0.4501
    """

    __slots__ = ()

    _rule = "nadam"
    _torch = InTorch(
        "NAdam",
        hyperparameters=(
            "lr",
            "betas",
            "eps",
            "momentum_decay",
            "decoupled_weight_decay",
            "weight_decay",
            "maximize",
        ),
        known_by=("momentum_decay",),
        own={"foreach": None, "capturable": False, "differentiable": False},
        absent={},
    )

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    momentum_decay = NumericOrNone(Interval())
    decoupled_weight_decay = Flag()

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        momentum_decay: Number | None = 4e-3,
        decoupled_weight_decay: bool = False,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
