"""LAMB."""

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

__all__ = ["LAMB"]


class LAMB(Optimizer):
    r"""LAMB: Adam whose step over a tensor is as long as a share of the tensor, for very large batches.

    With the states m and v, all zero at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g²
        u = m / (1 - beta1^t) / (sqrt(v) / sqrt(1 - beta2^t) + eps) + weight_decay * p
        q = |p| / |u|                             at most trust_clip; 1 if either norm is 0
        p = p - lr * q * u

    The norms |p| and |u| are Euclidean, over all elements of the parameter. They are read before the
    sweep, so a step reads parameter, gradient and states twice.

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    Parameters
    ----------
    params, lr, betas, eps
        As for `Adam`.
    trust_ratio : bool
        False: q = 1. Groups of biases and of the weights of norms often have False.
    trust_clip : float, callable or None
        Greater than 0; None for no limit of q.
    weight_decay : float or callable
        At least 0; its term is added to the update, not to the gradient.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    Y. You, J. Li, S. Reddi, J. Hseu, S. Kumar, S. Bhojanapalli, X. Song, J. Demmel, K. Keutzer,
    C.-J. Hsieh, "Large batch optimization for deep learning: training BERT in 76 minutes", ICLR
    2020, Algorithm 2.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([3.0, -4.0])
    >>> optimizer = instep.LAMB(w, lr=0.5, eps=0.0, weight_decay=0.0)
    >>> optimizer.step(2 * w)                # u is (1, -1), and q is 5 / sqrt(2)
    >>> w.round(3)
    array([ 1.232, -2.232])
    """

    __slots__ = ()

    _rule = "lamb"
    _torch = None

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    trust_ratio = Flag()
    trust_clip = NumericOrNone(Interval(low_open=True))

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-6,
        weight_decay: Number = 1e-2,
        trust_ratio: bool = True,
        trust_clip: Number | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "trust_ratio": trust_ratio,
            "trust_clip": trust_clip,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
