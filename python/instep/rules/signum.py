"""Signum and SignSGD."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Signum"]


class Signum(Optimizer):
    r"""Signum: every element moves by lr, against the sign of the momentum; SignSGD without momentum.

    With the buffer b, zero at first::

        p = p * (1 - lr * weight_decay)
        b = momentum * b + (1 - momentum) * g     with momentum = 0: b = g
        p = p - lr * sign(b)

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr
        As for `Lion`.
    momentum : float or callable
        In [0, 1): the share of the buffer that a step keeps. With the constant 0 there is no buffer;
        this is SignSGD.
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
    J. Bernstein, Y. Wang, K. Azizzadenesheli, A. Anandkumar, "signSGD: compressed optimisation for
    non-convex problems", ICML 2018, Algorithms 1 and 2.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0, 0.0])
    >>> optimizer = instep.Signum(w, lr=0.25, momentum=0.5)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.75, -1.75,  0.  ])
    >>> optimizer.state["0"]["momentum_buffer"]
    array([ 1., -2.,  0.])
    >>> instep.Signum(w, momentum=0.0).state["0"]
    {}
    """

    __slots__ = ()

    _rule = "signum"
    _torch = None
    _decoupled_decay = True

    momentum = Numeric(Interval(0.0, 1.0, high_open=True))

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        *,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        self._set_up(params, {"lr": lr, "momentum": momentum}, weight_decay=weight_decay, **shared)
