"""RMSprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Flag, Interval, Number, Numeric
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["RMSprop"]


class RMSprop(Optimizer):
    r"""RMSprop: the step is the gradient, divided by its running root mean square.

    With the states v (and a with centered, b with momentum), all zero at first::

        v = alpha * v + (1 - alpha) * g²
        u = v                                     centered: a = alpha * a + (1 - alpha) * g
                                                            u = max(v - a², 0)
        d = sqrt(u) + eps                         eps_inside_sqrt: d = sqrt(u + eps)
        p = p - lr * g / d                        momentum: b = momentum * b + g / d
                                                            p = p - lr * b

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    alpha : float or callable
        The share of the running mean of squares that a step keeps, in [0, 1).
    eps : float or callable
        At least 0; it limits the quotient if the gradients have been near zero. With eps = 0 an
        element whose gradients have all been zero becomes NaN.
    centered : bool
        Subtract the square of the running mean, so that d is a standard deviation.
    momentum : float or callable
        In [0, 1]; with 0 there is no buffer.
    eps_inside_sqrt : bool
        Add eps under the root, as Keras and optax do.
    lr_in_velocity : bool
        Put the learning rate inside the buffer, as Keras, optax and TensorFlow do:
        ``b = momentum * b + lr * g / d``, ``p = p - b``. Needs momentum > 0.
    initial_square_avg : float or callable
        At least 0: v before a parameter's first step. TensorFlow starts from 1.
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
    T. Tieleman, G. Hinton, "Lecture 6.5 - rmsprop", Neural Networks for Machine Learning, 2012.
    A. Graves, "Generating sequences with recurrent neural networks", 2013 (centred, momentum).

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.RMSprop(w, lr=0.5, alpha=0.75, eps=0.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0., -1.])
    >>> optimizer.state["0"]["square_avg"]
    array([1., 4.])
    """

    __slots__ = ()

    _rule = "rmsprop"
    _torch = InTorch(
        "RMSprop",
        hyperparameters=("lr", "alpha", "eps", "centered", "momentum", "weight_decay", "maximize"),
        known_by=("alpha", "momentum"),
        own={"foreach": None, "differentiable": False, "capturable": False},
        absent={
            "eps_inside_sqrt": False,
            "lr_in_velocity": False,
            "initial_square_avg": 0.0,
            "decoupled_weight_decay": False,
        },
    )

    alpha = Numeric(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    centered = Flag()
    momentum = Numeric(Interval(0.0, 1.0))
    eps_inside_sqrt = Flag()
    lr_in_velocity = Flag().absent_as(False)
    initial_square_avg = Numeric(Interval()).absent_as(0.0)
    decoupled_weight_decay = Flag().absent_as(False)

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        *,
        alpha: Number = 0.99,
        eps: Number = 1e-8,
        centered: bool = False,
        momentum: Number = 0.0,
        eps_inside_sqrt: bool = False,
        lr_in_velocity: bool = False,
        initial_square_avg: Number = 0.0,
        decoupled_weight_decay: bool = False,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "momentum": momentum,
            "eps_inside_sqrt": eps_inside_sqrt,
            "lr_in_velocity": lr_in_velocity,
            "initial_square_avg": initial_square_avg,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        if settings["lr_in_velocity"] and settings["momentum"] == 0:
            raise ValueError("momentum must be greater than 0 with lr_in_velocity=True, got 0")
