"""LARS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Flag, Interval, Number, Numeric
from instep.optimizers.keywords import Shared
from instep.rules.sgd import require_undamped

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["LARS"]


class LARS(Optimizer):
    r"""LARS: momentum whose step over a tensor is as long as a share of the tensor, for very large batches.

    With the buffer b::

        q = trust_coefficient * |p| / (|g| + weight_decay * |p| + eps)
                                                  1 if either norm is 0
        h = q * (g + weight_decay * p)
        b = h                                     at a parameter's first step
        b = momentum * b + (1 - dampening) * h    later
        p = p - lr * b                            or, with nesterov, p - lr * (h + momentum * b)

    The norms |p| and |g| are Euclidean, over all elements of the parameter. They are read before the
    sweep, so a step reads parameter and gradient twice.

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    momentum : float or callable
        In [0, 1]. With 0 there is no buffer.
    dampening : float or callable
        In [0, 1]; the share of h that is kept out of the buffer.
    nesterov : bool
        Nesterov's momentum; needs momentum > 0 and dampening = 0.
    trust_coefficient : float or callable
        At least 0: the share of the parameter's norm that a step with lr = 1 takes.
    eps : float or callable
        At least 0.
    trust_ratio : bool
        False: q = 1. Groups of biases and of the weights of norms often have False.
    weight_decay : float or callable
        At least 0; its term is added to the gradient after the norm of the gradient is taken.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    Y. You, I. Gitman, B. Ginsburg, "Large batch training of convolutional networks", 2017.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([3.0, -4.0])
    >>> optimizer = instep.LARS(w, lr=1.0, trust_coefficient=0.5, eps=0.0)
    >>> optimizer.step(np.array([0.0, 2.0]))  # the step is half as long as w
    >>> w
    array([ 3. , -6.5])
    """

    __slots__ = ()

    _rule = "lars"
    _torch = None

    momentum = Numeric(Interval(0.0, 1.0))
    dampening = Numeric(Interval(0.0, 1.0))
    nesterov = Flag()
    trust_coefficient = Numeric(Interval())
    eps = Numeric(Interval())
    trust_ratio = Flag()

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        *,
        momentum: Number = 0.9,
        dampening: Number = 0.0,
        nesterov: bool = False,
        weight_decay: Number = 0.0,
        trust_coefficient: Number = 1e-3,
        eps: Number = 1e-8,
        trust_ratio: bool = True,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "trust_coefficient": trust_coefficient,
            "eps": eps,
            "trust_ratio": trust_ratio,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        require_undamped("nesterov", settings)
