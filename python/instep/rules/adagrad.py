"""Adagrad."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Flag, Interval, Number, Numeric
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adagrad"]


class Adagrad(Optimizer):
    r"""Adagrad: the gradient, divided by the root of the sum of its squares so far.

    With the state s, initial_accumulator_value at first, at a parameter's t-th step::

        s = s + g²
        d = sqrt(s) + eps                         eps_inside_sqrt: d = sqrt(s + eps)
        p = p - lr / (1 + (t - 1) * lr_decay) * g / d

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    It is for sparse features: an element whose gradient is rarely other than zero keeps a large
    rate. Rates never grow again.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    lr_decay : float or callable
        At least 0: at its t-th step, a parameter has the rate lr / (1 + (t - 1) * lr_decay).
    initial_accumulator_value : float or callable
        At least 0: s before a parameter's first step. Keras and optax have 0.1.
    eps : float or callable
        At least 0. With eps = 0 an element whose gradients have all been zero becomes NaN, unless
        initial_accumulator_value is greater than 0.
    eps_inside_sqrt
        As for `RMSprop`.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    J. Duchi, E. Hazan, Y. Singer, "Adaptive subgradient methods for online learning and stochastic
    optimization", Journal of Machine Learning Research 12, 2011.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Adagrad(w, lr=0.5, eps=0.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.5, -1.5])
    >>> optimizer.state["0"]["sum"]
    array([ 4., 16.])
    """

    __slots__ = ()

    _rule = "adagrad"
    _torch = InTorch(
        "Adagrad",
        hyperparameters=(
            "lr",
            "lr_decay",
            "eps",
            "weight_decay",
            "initial_accumulator_value",
            "maximize",
        ),
        known_by=("lr_decay", "initial_accumulator_value"),
        own={"foreach": None, "differentiable": False, "fused": None},
        absent={"eps_inside_sqrt": False},
        starts={"sum": "initial_accumulator_value"},
    )

    lr_decay = Numeric(Interval())
    initial_accumulator_value = Numeric(Interval())
    eps = Numeric(Interval())
    eps_inside_sqrt = Flag()

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        *,
        lr_decay: Number = 0.0,
        initial_accumulator_value: Number = 0.0,
        eps: Number = 1e-10,
        eps_inside_sqrt: bool = False,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "lr_decay": lr_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "eps_inside_sqrt": eps_inside_sqrt,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
