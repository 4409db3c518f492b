"""Stochastic gradient descent, with and without momentum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from instep.optimizers.base import Optimizer
from instep.optimizers.hyperparameters import Interval, Number
from instep.optimizers.parameters import Copies, Params

__all__ = ["SGD", "Momentum"]


class SGD(Optimizer):
    r"""Stochastic gradient descent, optionally with momentum.

    Without momentum ``p = p - lr * g``. With it, and the buffer b::

        b = g                                        at a parameter's first step
        b = momentum * b + (1 - dampening) * g       later
        p = p - lr * b                               or, with nesterov, p - lr * (g + momentum * b)

    With ``lr_in_velocity`` the learning rate is inside the buffer, which starts at zero, as in
    Sutskever et al., Keras, scikit-learn and most textbooks; the two differ where lr changes::

        b = momentum * b + lr * g
        p = p - b                                    or, with nesterov, p - (momentum * b + lr * g)

    Before that, each line only where its argument is set: the gradient is scaled to ``clip_norm``,
    clipped to ``clip_value``, negated by ``maximize``, and ``weight_decay * p`` and
    ``l1 * sign(p)`` are added, in this order.

    Parameters
    ----------
    params : array, list or tuple of arrays, dict name -> array, or list of group dicts
        Writeable arrays of float64, float32, float16 or bfloat16 (ml_dtypes), of any shape and
        strides, changed in place. A group dict has such a container under "params" and may have any
        of the hyperparameters below but clip_norm and state_dtype.
    lr : float or callable
        Learning rate, at least 0. As every number here it may be a callable from the number of
        completed steps (0 at the first step) to a float, such as those of `instep.schedules`.
    momentum : float or callable
        In [0, 1]. 0 keeps no buffer.
    dampening : float or callable
        In [0, 1]; how much of the gradient is kept out of the buffer.
    nesterov : bool
        Nesterov's momentum; needs momentum > 0 and dampening = 0.
    lr_in_velocity : bool
        See above; needs momentum > 0 and dampening = 0.
    weight_decay : float or callable
        L2 regularisation, at least 0; added to the gradient.
    l1 : float or callable
        L1 regularisation, at least 0; added to the gradient.
    clip_value : float, callable or None
        Each element of the gradient is limited to [-clip_value, clip_value]; greater than 0.
    maximize : bool
        Go up the gradient, not down.
    clip_norm : float, callable or None
        The gradients of all parameters together are scaled down to this Euclidean norm where theirs
        is larger; greater than 0. `grad_norm` has theirs.
    nonfinite : {"propagate", "skip", "raise"}
        Where a gradient is infinite or NaN: compute on ("propagate"), change nothing and count the
        step in `skipped_steps` ("skip"; what was accumulated is dropped), or raise
        FloatingPointError, which changes nothing either. The last two read the gradients once more.
    ema_decay : float, callable or None
        Keep an exponential moving average e of each parameter, in [0, 1), from its first value on:
        e = e + (1 - ema_decay) * (p - e), in the same sweep; see `averaged`.
    copy_to : container like params, or None
        Arrays of the parameters' shapes and of a narrower dtype (float16 or bfloat16; float32 for
        float64 parameters) that always hold the parameters, rounded: written in the same sweep.
    state_dtype : dtype or None
        How states are stored: float16 or bfloat16 halve their memory and round them at every step.
        None: float64 for float64 parameters, float32 for the others.

    Raises
    ------
    TypeError, ValueError
        If a parameter can't be updated in place (read-only, misaligned, byte-swapped, of another
        dtype, overlapping itself or another), or a hyperparameter is out of its range.

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

    _rule = "sgd"
    _intervals: ClassVar[dict[str, Interval]] = {
        "momentum": Interval(0.0, 1.0),
        "dampening": Interval(0.0, 1.0),
    }
    _flags = ("nesterov", "lr_in_velocity")

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        momentum: Number = 0.0,
        dampening: Number = 0.0,
        nesterov: bool = False,
        lr_in_velocity: bool = False,
        weight_decay: Number = 0.0,
        l1: Number = 0.0,
        clip_value: Number | None = None,
        maximize: bool = False,
        clip_norm: Number | None = None,
        nonfinite: str = "propagate",
        ema_decay: Number | None = None,
        copy_to: Copies | None = None,
        state_dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(
            params,
            {
                "lr": lr,
                "momentum": momentum,
                "dampening": dampening,
                "nesterov": nesterov,
                "lr_in_velocity": lr_in_velocity,
                "weight_decay": weight_decay,
                "l1": l1,
                "clip_value": clip_value,
                "maximize": maximize,
            },
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            ema_decay=ema_decay,
            copy_to=copy_to,
            state_dtype=state_dtype,
        )

    @classmethod
    def _options(cls, settings: Mapping[str, Any]) -> tuple[str, ...]:
        on = {"momentum": callable(settings["momentum"]) or settings["momentum"] > 0}
        on |= {name: settings[name] for name in ("nesterov", "lr_in_velocity")}
        return tuple(name for name, is_on in on.items() if is_on)

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        for flag in ("nesterov", "lr_in_velocity"):
            if not settings[flag]:
                continue
            if settings["momentum"] == 0:
                raise ValueError(f"{flag} is True and momentum is 0; momentum > 0 is wanted")
            if settings["dampening"] != 0:
                raise ValueError(
                    f"{flag} is True and dampening is {settings['dampening']!r}; dampening = 0 is wanted"
                )


class Momentum(SGD):
    """Stochastic gradient descent with momentum: `SGD` with momentum=0.9 by default, greater than 0.

    Formula, parameters, errors and papers are those of `SGD`.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = {"w": np.array([4.0])}
    >>> optimizer = instep.Momentum(w, lr=0.125, nesterov=True)
    >>> optimizer.step({"w": np.array([8.0])})
    >>> w
    {'w': array([2.1])}
    """

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        momentum: Number = 0.9,
        dampening: Number = 0.0,
        nesterov: bool = False,
        lr_in_velocity: bool = False,
        weight_decay: Number = 0.0,
        l1: Number = 0.0,
        clip_value: Number | None = None,
        maximize: bool = False,
        clip_norm: Number | None = None,
        nonfinite: str = "propagate",
        ema_decay: Number | None = None,
        copy_to: Copies | None = None,
        state_dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            momentum=momentum,
            dampening=dampening,
            nesterov=nesterov,
            lr_in_velocity=lr_in_velocity,
            weight_decay=weight_decay,
            l1=l1,
            clip_value=clip_value,
            maximize=maximize,
            clip_norm=clip_norm,
            nonfinite=nonfinite,
            ema_decay=ema_decay,
            copy_to=copy_to,
            state_dtype=state_dtype,
        )

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        if settings["momentum"] == 0:
            raise ValueError(
                "momentum is 0; a number in (0, 1] is wanted (SGD does without momentum)"
            )
        super()._check(settings)
