"""Lion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, NumericPair
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Lion"]


class Lion(Optimizer):
    r"""Lion: every element moves by lr, against the sign of a running mean of the gradient.

    With the state m, zero at first::

        p = p * (1 - lr * weight_decay)
        p = p - lr * sign(beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    It has half the state of `AdamW`. The paper recommends a third to a tenth of AdamW's learning
    rate, and 3 to 10 times its weight decay.

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr : float or callable
        At least 0: how far each element moves in a step.
    betas : pair of float or callable
        Each in [0, 1): the share of the running mean in the direction of the step, and the share
        that a step keeps of the mean.
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
    X. Chen, C. Liang, D. Huang, E. Real, K. Wang, Y. Liu, H. Pham, X. Dong, T. Luong, C. Hsieh, Y.
    Lu, Q. V. Le, "Symbolic discovery of optimization algorithms", NeurIPS 2023, Program 1.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Lion(w, lr=0.25, betas=(0.5, 0.75))
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.75, -1.75])
    >>> optimizer.state["0"]["exp_avg"]
    array([ 0.5, -1. ])
    """

    __slots__ = ()

    _rule = "lion"
    _torch = None
    _decoupled_decay = True

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-4,
        *,
        betas: tuple[Number, Number] = (0.9, 0.99),
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        self._set_up(params, {"lr": lr, "betas": betas}, weight_decay=weight_decay, **shared)
