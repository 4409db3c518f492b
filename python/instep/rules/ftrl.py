"""FTRL-Proximal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["FTRL"]


class FTRL(Optimizer):
    r"""FTRL-Proximal: follow the regularised leader, with weights that L1 makes exactly zero.

    With the states n, initial_accumulator_value at first, and z, zero at first::

        c = n + g²
        z = z + g - (sqrt(c) - sqrt(n)) / lr * p
        p = (min(max(z, -l1), l1) - z) / ((sqrt(c) + beta) / lr + weight_decay)
        n = c

    So p is 0 where |z| <= l1. Before the rule, ``clip_norm``, ``clip_value`` and ``maximize`` are
    applied to the gradient, in this order.

    It is for linear models with many sparse features, such as click prediction: few weights remain
    other than zero.

    Each step computes the parameter anew from the states. So weights that are not 0 at the start act
    through the parameter's first step alone; start from zeros. If beta, weight_decay and
    initial_accumulator_value are all 0, an element whose gradients have all been zero becomes NaN
    (0/0).

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr : float or callable
        Learning rate, greater than 0: the paper's alpha.
    beta : float or callable
        At least 0: added to the root, so that the first steps are shorter.
    initial_accumulator_value : float or callable
        At least 0: n before a parameter's first step.
    weight_decay : float or callable
        At least 0: the paper's lambda2. It is part of the rule, and adds nothing to the gradient.
    l1 : float or callable
        At least 0: the paper's lambda1, which |z| must exceed. It is part of the rule, and adds
        nothing to the gradient.
    decoupled_l1 : bool
        Must be False, since l1 is part of the rule.
    clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.
    state_dtype : dtype or None
        The states are as exact as the parameter: they stay float64 for float64 parameters, float32
        for the others.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    H. B. McMahan, G. Holt, D. Sculley, M. Young, D. Ebner, J. Grady, L. Nie, T. Phillips, E. Davydov,
    D. Golovin, S. Chikkerur, D. Liu, M. Wattenberg, A. M. Hrafnkelsson, T. Boulos, J. Kubica, "Ad
    click prediction: a view from the trenches", KDD 2013, Algorithm 1.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.zeros(2)
    >>> optimizer = instep.FTRL(w, lr=0.5, beta=2.0, l1=1.0)
    >>> optimizer.step(np.array([2.0, 0.5]))
    >>> w
    array([-0.125,  0.   ])
    >>> optimizer.state["0"]["linear"]       # the second is within [-l1, l1]
    array([2. , 0.5])
    """

    __slots__ = ()

    _rule = "ftrl"
    _torch = None
    _no_decoupled_l1 = "l1 is part of the rule"

    lr = Numeric(Interval(low_open=True))
    beta = Numeric(Interval())
    initial_accumulator_value = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 0.1,
        *,
        beta: Number = 1.0,
        initial_accumulator_value: Number = 0.0,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "beta": beta, "initial_accumulator_value": initial_accumulator_value}
        self._set_up(params, own, weight_decay=weight_decay, **shared)
