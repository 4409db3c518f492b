"""Prodigy."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import (
    Flag,
    Interval,
    Number,
    Numeric,
    NumericOrNone,
    NumericPair,
)
from instep.optimizers.keywords import Shared

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Prodigy"]


class Prodigy(Optimizer):
    r"""Prodigy: Adam without a learning rate to choose.

    It estimates d, the distance from the start to the solution, from sums over all parameters of the
    optimizer. With the states m, v, s, all zero at first, and p0, the parameter at its first step; with
    d = d_max = d0 and N = 0 at first, at the k-th step::

        e = d * lr                                with use_bias_correction
                                                  d * lr * sqrt(1 - beta2^k) / (1 - beta1^k)
        N = beta3 * N + d / d0 * e * sum(g * (p0 - p))
        m = beta1 * m + d * (1 - beta1) * g
        v = beta2 * v + d² * (1 - beta2) * g²
        s = beta3 * s + d / d0 * e * g            with safeguard_warmup, d in place of e
        d_hat = d_coef * N / sum(|s|)
        d = max(d, d_hat)                         only as long as d is d0
        d_max = max(d_max, d_hat)
        d = min(d_max, d * growth_rate)
        p = p * (1 - weight_decay * e)
        p = p - e * m / (sqrt(v) + d * eps)       with the new d, and the old e

    p, d and N stay as long as sum(|s|) is 0. The sums are read before the sweep, so a step reads
    parameter, gradient, s and p0 twice. Parameters without a gradient take no part. d, d_max, N (as
    ``d_numerator``) and k are scalar states, the same array for each parameter. k counts the steps in
    which any parameter had a gradient.

    All parameters should begin together. A parameter whose first gradient comes late, after d has
    grown, or a group that is thawed, takes first steps that are several times too long, since its m
    and v start from zero: make a new `Prodigy` over all parameters then.

    p0 has the arithmetic's type, whatever ``state_dtype`` is; a ``state_dtype`` of float16 is
    refused. The rate of ``decoupled_l1`` is e.

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order. A gradient with a NaN ends the growth of d for good: use
    ``nonfinite="skip"``.

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr : float or callable
        At least 0; not a learning rate, but a factor of the step size: leave it at 1, or give a
        schedule that falls from 1. With a rate of another rule, such as 0.001, d hardly grows. It
        must be the same in all groups, or the constant 0: a group with 0 takes no part and is not
        changed. If a schedule is 0 at a step, only the counts move.
    betas : pair of float or callable
        In [0, 1).
    beta3 : float, callable or None
        In [0, 1): the share of N and s that a step keeps; None for sqrt(beta2).
    eps : float or callable
        At least 0; times d, added to the root. Groups may differ.
    weight_decay : float or callable
        At least 0; decoupled. Groups may differ.
    use_bias_correction : bool
        Correct the step size as Adam does, for a longer warm-up.
    safeguard_warmup : bool
        Take the learning rate out of s: for schedules with a warm-up.
    d0 : float or callable
        Greater than 0; the first d, which should be far smaller than the distance to the solution.
    d_coef : float or callable
        Greater than 0; a factor of the estimate: 0.5 or 2 for shorter or longer steps.
    growth_rate : float or callable
        At least 1: the most by which a step multiplies d; 1.02 is a kind of warm-up.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.
    ValueError
        If groups differ in another hyperparameter than eps, weight_decay and those of the gradient.

    References
    ----------
    K. Mishchenko, A. Defazio, "Prodigy: an expeditiously adaptive parameter-free learner", ICML 2024,
    Algorithm 4; with the lines of the authors' package.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([3.0, -4.0])
    >>> optimizer = instep.Prodigy(w)
    >>> for _ in range(100):
    ...     optimizer.step(2 * w)
    >>> bool(abs(w).max() < 0.1), bool(optimizer.state["0"]["d"] > 0.1)
    (True, True)
    """

    __slots__ = ()

    _rule = "prodigy"
    _torch = None
    _alike = (
        "lr",
        "betas",
        "beta3",
        "use_bias_correction",
        "safeguard_warmup",
        "d0",
        "d_coef",
        "growth_rate",
    )

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    beta3 = NumericOrNone(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    use_bias_correction = Flag()
    safeguard_warmup = Flag()
    d0 = Numeric(Interval(low_open=True))
    d_coef = Numeric(Interval(low_open=True))
    growth_rate = Numeric(Interval(1.0, finite=False))

    def __init__(
        self,
        params: Params,
        lr: Number = 1.0,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        beta3: Number | None = None,
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        use_bias_correction: bool = False,
        safeguard_warmup: bool = False,
        d0: Number = 1e-6,
        d_coef: Number = 1.0,
        growth_rate: Number = math.inf,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "beta3": beta3,
            "eps": eps,
            "use_bias_correction": use_bias_correction,
            "safeguard_warmup": safeguard_warmup,
            "d0": d0,
            "d_coef": d_coef,
            "growth_rate": growth_rate,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
