"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep._support.wording import shown
from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Flag, Interval, Number, Numeric
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["SGD", "Momentum", "require_undamped"]


class SGDKeywords(Shared, total=False):
    """Keywords of `SGD` that `Momentum` passes on."""

    dampening: Number
    nesterov: bool
    lr_in_velocity: bool
    decoupled_weight_decay: bool


def require_undamped(flag: str, settings: Mapping[str, Any]) -> None:
    """Raise ValueError if this flag is on without momentum, or with dampening."""
    if not settings[flag]:
        return
    if settings["momentum"] == 0:
        raise ValueError(f"momentum must be greater than 0 with {flag}=True, got 0")
    if settings["dampening"] != 0:
        raise ValueError(
            f"dampening must be 0 with {flag}=True, got {shown(settings['dampening'])}"
        )


class SGD(Optimizer):
    r"""Stochastic gradient descent, optionally with momentum.

    Without momentum ``p = p - lr * g``. With it, and the buffer b::

        b = g                                        at a parameter's first step
        b = momentum * b + (1 - dampening) * g       later
        p = p - lr * b                               or, with nesterov, p - lr * (g + momentum * b)

    With ``lr_in_velocity`` the learning rate is inside the buffer, which starts at zero, as in
    Sutskever et al., Keras, scikit-learn and most textbooks. The two forms differ when lr changes::

        b = momentum * b + lr * g
        p = p - b                                    or, with nesterov, p - (momentum * b + lr * g)

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    momentum : float or callable
        In [0, 1]. With 0 there is no buffer.
    dampening : float or callable
        In [0, 1]; the share of the gradient that is kept out of the buffer.
    nesterov : bool
        Nesterov's momentum; needs momentum > 0 and dampening = 0.
    lr_in_velocity : bool
        Put the learning rate inside the buffer, as in the second form above; needs momentum > 0 and
        dampening = 0.
    decoupled_weight_decay : bool
        Apply ``weight_decay`` to the parameter before the rule, ``p = p * (1 - lr * weight_decay)``,
        instead of adding it to the gradient.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    B. T. Polyak, "Some methods of speeding up the convergence of iteration methods", 1964.
    I. Sutskever, J. Martens, G. Dahl, G. Hinton, "On the importance of initialization and momentum
    in deep learning", ICML 2013.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.SGD(w, lr=0.25, momentum=0.5)
    >>> for _ in range(3):
    ...     optimizer.step(2 * w)
    >>> w
    array([-0.25,  0.5 ])
    >>> optimizer.state["0"]["momentum_buffer"]
    array([ 1., -2.])
    """

    __slots__ = ()

    _rule = "sgd"
    _torch = InTorch(
        "SGD",
        hyperparameters=("lr", "momentum", "dampening", "nesterov", "weight_decay", "maximize"),
        known_by=("momentum",),
        own={"foreach": None, "differentiable": False, "fused": None},
        absent={"lr_in_velocity": False, "decoupled_weight_decay": False},
        counts_steps=False,
    )

    momentum = Numeric(Interval(0.0, 1.0))
    dampening = Numeric(Interval(0.0, 1.0))
    nesterov = Flag()
    lr_in_velocity = Flag()
    decoupled_weight_decay = Flag().absent_as(False)

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        nesterov: bool = False,
        lr_in_velocity: bool = False,
        decoupled_weight_decay: bool = False,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "nesterov": nesterov,
            "lr_in_velocity": lr_in_velocity,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        require_undamped("nesterov", settings)
        require_undamped("lr_in_velocity", settings)


class Momentum(SGD):
    """Stochastic gradient descent with momentum: `SGD` with momentum=0.9 by default, greater than 0.

    With the buffer b, which is g at a parameter's first step::

        b = momentum * b + (1 - dampening) * g
        p = p - lr * b                               or, with nesterov, p - lr * (g + momentum * b)

    `SGD` describes the form with ``lr_in_velocity``, and names the papers.

    Parameters
    ----------
    params, lr
        As for `SGD`.
    momentum : float or callable
        In (0, 1].
    dampening, nesterov, lr_in_velocity, decoupled_weight_decay
        As for `SGD`.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `SGD`.

    Raises
    ------
    TypeError, ValueError
        As for `SGD`.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = {"w": np.array([4.0])}
    >>> optimizer = instep.Momentum(w, lr=0.125, nesterov=True)
    >>> optimizer.step({"w": np.array([8.0])})
    >>> w
    {'w': array([2.1])}
    """

    __slots__ = ()

    _torch = SGD._torch

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        momentum: Number = 0.9,
        weight_decay: Number = 0.0,
        **sgds: Unpack[SGDKeywords],
    ) -> None:
        super().__init__(params, lr, momentum=momentum, weight_decay=weight_decay, **sgds)

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        if settings["momentum"] == 0:
            raise ValueError(
                "momentum must be a number in (0, 1], got 0; use SGD for steps without momentum"
            )
        super()._check(settings)
