"""Adadelta."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adadelta"]


class Adadelta(Optimizer):
    r"""Adadelta: the gradient, times the root mean square of recent steps, divided by its own.

    With the states v and u, zero at first::

        v = rho * v + (1 - rho) * g²
        d = sqrt(u + eps) / sqrt(v + eps) * g
        u = rho * u + (1 - rho) * d²
        p = p - lr * d

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    The steps are in the units of the parameter, so lr = 1 suits most problems.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    rho : float or callable
        In [0, 1): the share that a step keeps of the two running means of squares.
    eps : float or callable
        At least 0. It decides how long the first steps are. With eps = 0 nothing moves, and an
        element whose gradients have all been zero becomes NaN.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    M. D. Zeiler, "ADADELTA: an adaptive learning rate method", arXiv:1212.5701, 2012, Algorithm 1.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -1.0])
    >>> optimizer = instep.Adadelta(w, lr=0.5, rho=0.25, eps=1.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.5, -0.5])
    >>> optimizer.state["0"]["acc_delta"]
    array([0.75, 0.75])
    """

    __slots__ = ()

    _rule = "adadelta"
    _torch = InTorch(
        "Adadelta",
        hyperparameters=("lr", "rho", "eps", "weight_decay", "maximize"),
        known_by=("rho",),
        own={"foreach": None, "differentiable": False, "capturable": False},
        absent={},
    )

    rho = Numeric(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        *,
        rho: Number = 0.9,
        eps: Number = 1e-6,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        self._set_up(
            params, {"lr": lr, "rho": rho, "eps": eps}, weight_decay=weight_decay, **shared
        )
