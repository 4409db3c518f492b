"""Averaged stochastic gradient descent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ASGD"]


class ASGD(Optimizer):
    r"""Averaged stochastic gradient descent, with a rate that falls, and the mean of the weights.

    With the state a, and at first eta = lr and mu = 1, at a parameter's t-th step::

        p = p * (1 - lambd * eta)
        p = p - eta * g
        a = p                                     while mu = 1; later a = a + mu * (p - a)
        eta = lr / (1 + lambd * lr * t)^alpha,  mu = 1 / max(1, t - t0)

    `averaged` shows a, which has the arithmetic's type, whatever ``state_dtype`` is. ``ema_decay`` is
    refused. ``decoupled_l1`` acts on p alone, so a has no exact zeros. With a schedule, lr acts one
    step late, as in PyTorch.

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    lambd : float or callable
        At least 0: the decay of the weights, and how fast the rate falls.
    alpha : float or callable
        At least 0: the power with which the rate falls.
    t0 : float or callable
        At least 0: the step after which the mean begins.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    B. T. Polyak, A. B. Juditsky, "Acceleration of stochastic approximation by averaging", SIAM
    Journal on Control and Optimization, 1992.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0])
    >>> optimizer = instep.ASGD(w, lr=0.5, lambd=0.0, t0=0)
    >>> for g in [1.0, 1.0, -3.0]:
    ...     optimizer.step(np.array([g]))
    >>> w
    array([1.5])
    >>> with optimizer.averaged():
    ...     print(w)
    [0.75]
    """

    __slots__ = ()

    _rule = "asgd"
    _shows_iterate = True
    _torch = InTorch(
        "ASGD",
        hyperparameters=("lr", "lambd", "alpha", "t0", "weight_decay", "maximize"),
        known_by=("lambd", "t0"),
        own={"foreach": None, "differentiable": False, "capturable": False},
        absent={},
    )

    lambd = Numeric(Interval())
    alpha = Numeric(Interval())
    t0 = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        *,
        lambd: Number = 1e-4,
        alpha: Number = 0.75,
        t0: Number = 1e6,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "lambd": lambd, "alpha": alpha, "t0": t0}
        self._set_up(params, own, weight_decay=weight_decay, **shared)
