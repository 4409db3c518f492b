"""Schedule-free SGD and AdamW."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import (
    Constant,
    ConstantFirst,
    Interval,
    Number,
    Numeric,
)
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["ScheduleFreeAdamW", "ScheduleFreeSGD"]

_OPEN = Interval(0.0, 1.0, low_open=True, high_open=True)


class ScheduleFreeSGD(Optimizer):
    r"""Schedule-free stochastic gradient descent: no schedule, and no end of the run to know.

    The parameter holds y, at which the gradient is taken. With the state z, which starts as y, and
    lr_max = weight_sum = 0 at first, at a parameter's t-th step::

        lr_max = max(lr_max, lr)
        weight_sum = weight_sum + t^r * lr_max^weight_lr_power
        c = t^r * lr_max^weight_lr_power / weight_sum      0 while that sum is 0
        u = g + weight_decay * y
        y = y + c * (z - y)
        y = y - lr * (1 - momentum * (1 - c)) * u
        z = z - lr * u

    Evaluate, and use in the end, the average x = y + (1 - 1 / momentum) * (z - y): `averaged` shows
    it. For a warm-up, let lr be a schedule that rises. z has the arithmetic's type, whatever
    ``state_dtype`` is. ``ema_decay`` and ``decoupled_l1`` are refused.

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    momentum : float
        In (0, 1); a constant, which can't be changed later.
    weight_decay : float or callable
        At least 0; its term is taken at y.
    r : float or callable
        At least 0: the power of the step in the weight of the average; 0 for equal weights.
    weight_lr_power : float or callable
        At least 0: the power of the largest rate so far in the weight of the average.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    A. Defazio, X. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky, "The road less scheduled",
    NeurIPS 2024.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0])
    >>> optimizer = instep.ScheduleFreeSGD(w, lr=0.5, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.step(w.copy())
    >>> w
    array([0.3125])
    >>> with optimizer.averaged():
    ...     print(w)
    [0.375]
    """

    __slots__ = ()

    _rule = "schedule_free_sgd"
    _torch = None
    _shows_iterate = True
    _no_decoupled_l1 = "the parameter is not the average that is used"

    momentum = Constant(_OPEN)
    r = Numeric(Interval())
    weight_lr_power = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        *,
        momentum: float = 0.9,
        weight_decay: Number = 0.0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "momentum": momentum, "r": r, "weight_lr_power": weight_lr_power}
        self._set_up(params, own, weight_decay=weight_decay, **shared)


class ScheduleFreeAdamW(Optimizer):
    r"""Schedule-free AdamW: no schedule, and no end of the run to know.

    As `ScheduleFreeSGD` with momentum = beta1 and, with the state v, zero at first::

        v = beta2 * v + (1 - beta2) * g²
        u = g / (sqrt(v) / sqrt(1 - beta2^t) + eps) + weight_decay * y

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas : pair of float
        The first in (0, 1), a constant, which can't be changed later; the second in [0, 1), which
        may be a callable.
    eps : float or callable
        At least 0; added to the corrected root.
    weight_decay, r, weight_lr_power
        As for `ScheduleFreeSGD`.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    A. Defazio, X. Yang, H. Mehta, K. Mishchenko, A. Khaled, A. Cutkosky, "The road less scheduled",
    NeurIPS 2024.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.ScheduleFreeAdamW(w, lr=0.5, eps=0.0)
    >>> optimizer.step(2 * w)                # the first step is lr long in every element
    >>> w.round(12)
    array([ 0.5, -1.5])
    >>> sorted(optimizer.state["0"])
    ['exp_avg_sq', 'lr_max', 'weight_sum', 'z']
    """

    __slots__ = ()

    _rule = "schedule_free_adamw"
    _torch = None
    _shows_iterate = True
    _no_decoupled_l1 = "the parameter is not the average that is used"

    betas = ConstantFirst(_OPEN, Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    r = Numeric(Interval())
    weight_lr_power = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 2.5e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        r: Number = 0.0,
        weight_lr_power: Number = 2.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps, "r": r, "weight_lr_power": weight_lr_power}
        self._set_up(params, own, weight_decay=weight_decay, **shared)
