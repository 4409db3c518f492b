"""Adam, AMSGrad and AdamW."""

from __future__ import annotations

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
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adam", "AdamW"]


_TORCHS = InTorch(
    "Adam",
    hyperparameters=("lr", "betas", "eps", "amsgrad", "weight_decay", "maximize"),
    known_by=("betas",),
    own={
        "foreach": None,
        "differentiable": False,
        "capturable": False,
        "fused": None,
        "decoupled_weight_decay": False,
    },
    absent={"eps_hat": False, "clip_update": None},
)


class AdamKeywords(Shared, total=False):
    """Keywords of `Adam` that `AdamW` passes on."""

    betas: tuple[Number, Number]
    eps: Number
    amsgrad: bool
    eps_hat: bool
    clip_update: Number | None


class Adam(Optimizer):
    r"""Adam: the step is the running mean of the gradient, divided by its running root mean square.

    With the states m and v (and w with amsgrad), all zero at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g²
        w = max(w, v)                             amsgrad; otherwise w = v
        p = p - lr / (1 - beta1^t) * m / (sqrt(w) / sqrt(1 - beta2^t) + eps)

    With ``eps_hat`` the last line is::

        p = p - lr * sqrt(1 - beta2^t) / (1 - beta1^t) * m / (sqrt(w) + eps)

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr : float or callable
        Learning rate, at least 0: about the largest change of an element in one step. Like every
        number here, it may be a callable from the number of completed steps (0 at the first step)
        to a float, such as those of `instep.schedules`.
    betas : pair of float or callable
        Each in [0, 1): the shares that a step keeps of the running mean of the gradient, and of the
        running mean of its square.
    eps : float or callable
        At least 0; added to the corrected root. With eps = 0 an element whose gradients have all
        been zero becomes NaN.
    amsgrad : bool
        Divide by the largest mean square so far.
    eps_hat : bool
        Add eps to the root before it is corrected, as the paper's "epsilon hat" and scikit-learn,
        Keras and spaCy do. In the first steps, eps then has up to 1 / sqrt(1 - beta2) times the
        effect.
    clip_update : float, callable or None
        Greater than 0, often 1. Lower lr for a parameter's step if the root mean square of
        ``g / max(sqrt(v) / sqrt(1 - beta2^t), eps)`` over its elements exceeds this number, in the
        same ratio: StableAdamW. The sum is read before the sweep, so a step reads gradient and v
        twice.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 1.
    S. J. Reddi, S. Kale, S. Kumar, "On the convergence of Adam and beyond", ICLR 2018 (amsgrad; the
    maximum is of the uncorrected mean, as in PyTorch and Keras).
    M. Wortsman, T. Dettmers, L. Zettlemoyer, A. Morcos, A. Farhadi, L. Schmidt, "Stable and
    low-precision training for large-scale vision-language models", NeurIPS 2023 (clip_update).

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Adam(w, lr=0.5, eps=0.0)
    >>> optimizer.step(2 * w)                # the first step is lr long in every element
    >>> w.round(12)
    array([ 0.5, -1.5])
    >>> sorted(optimizer.state["0"])
    ['exp_avg', 'exp_avg_sq']
    """

    __slots__ = ()

    _rule = "adam"
    _torch = _TORCHS

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())
    amsgrad = Flag()
    eps_hat = Flag().absent_as(False)
    clip_update = NumericOrNone(Interval(low_open=True)).absent_as(None)

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        amsgrad: bool = False,
        eps_hat: bool = False,
        clip_update: Number | None = None,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "amsgrad": amsgrad,
            "eps_hat": eps_hat,
            "clip_update": clip_update,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)


class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    With `Adam`'s states, at the parameter's step t = 1, 2, ...::

        p = p * (1 - lr * weight_decay)
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g²
        w = max(w, v)                             amsgrad; otherwise w = v
        p = p - lr / (1 - beta1^t) * m / (sqrt(w) / sqrt(1 - beta2^t) + eps)

    Here ``weight_decay`` adds nothing to the gradient. Everything else is as in `Adam`.

    Parameters
    ----------
    params, lr, betas, eps, amsgrad, eps_hat, clip_update
        As for `Adam`.
    weight_decay : float or callable
        At least 0: in each step, the weight loses the share lr * weight_decay.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Adam`.

    Raises
    ------
    TypeError, ValueError
        As for `Adam`.

    References
    ----------
    I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", ICLR 2019.

    Examples
    --------
    >>> import numpy as np, instep
    >>> from instep import schedules
    >>> w = np.array([1.0, -2.0], dtype=np.float32)
    >>> optimizer = instep.AdamW(w, lr=schedules.CosineDecay(0.5, steps=100), weight_decay=0.1)
    >>> optimizer.step(np.zeros_like(w))     # only the decay
    >>> w
    array([ 0.95, -1.9 ], dtype=float32)
    """

    __slots__ = ()

    _decoupled_decay = True
    _torch = _TORCHS._replace(name="AdamW", own={**_TORCHS.own, "decoupled_weight_decay": True})

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        weight_decay: Number = 1e-2,
        **adams: Unpack[AdamKeywords],
    ) -> None:
        super().__init__(params, lr, weight_decay=weight_decay, **adams)
