"""Muon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import (
    Count,
    Flag,
    Interval,
    Number,
    Numeric,
    NumericTriple,
    OneOf,
)
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Muon"]

_ANY = Interval(-1e3, 1e3)  # beyond, the iteration diverges anyway


class Muon(Optimizer):
    r"""Muon: momentum whose step over a matrix is made orthogonal, for the matrices of hidden layers.

    With the state b, zero at first, at each step of a parameter of shape (rows, columns)::

        b = momentum * b + (1 - momentum) * g
        u = (1 - momentum) * g + momentum * b     with nesterov, else b
        X = u / max(|u|, eps)                     transposed where rows > columns
        ns_steps times:
            A = X X'
            X = c1 * X + (c2 * A + c3 * A A) X    c1, c2, c3: the ns_coefficients
        p = p * (1 - lr * weight_decay)
        p = p - lr * q * X

    Each parameter must have two axes. Give biases, norms, embeddings and the last layer to `AdamW`.

    |u| is the Euclidean norm of the matrix; the iteration (Newton-Schulz) brings all singular values
    near 1. q is 0.2 * sqrt(max(rows, columns)) for "match_rms_adamw": the step has about the size of
    AdamW's, and so AdamW's lr and weight_decay fit. For "original" it is sqrt(max(1, rows / columns)).

    The products are NumPy's `matmul`, in the arithmetic's type. So bits are the same only with the same
    BLAS, at the same number of its threads, on the same kind of CPU. All other lines are exact. The first
    step allocates memory for the products, which is kept: for all matrices together as much as the
    parameters take in the arithmetic's type, and for the largest matrix once more with two squares of
    its shorter side.

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize`` and ``l1`` are applied to the
    gradient, in this order.

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr : float or callable
        At least 0. The root mean square of a step's changes is about 0.2 * lr; for "original" it is
        about lr / sqrt(columns).
    weight_decay : float or callable
        As for `AdamW`.
    momentum : float or callable
        In [0, 1).
    nesterov : bool
        Look ahead by one step of momentum.
    ns_steps : int
        The number of iterations, from 1 to 99; not a schedule.
    ns_coefficients : three of float or callable
        In [-1000, 1000].
    eps : float or callable
        At least 0: the least divisor.
    adjust_lr : {"match_rms_adamw", "original"}
        The factor q; fixed when the optimizer is made.
    l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to, state_dtype,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.
    ValueError
        If a parameter hasn't two axes.
    MemoryError
        By the first step, if there is no memory for the products; nothing has changed then.

    References
    ----------
    K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024; J. Liu et al.,
    "Muon is scalable for LLM training", 2025.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.zeros((2, 3))
    >>> optimizer = instep.Muon(w, lr=0.5, weight_decay=0.0, adjust_lr="original")
    >>> optimizer.step(np.array([[3.0, 0.0, 0.0], [0.0, 0.5, 0.0]]))  # both directions count alike
    >>> abs(w / 0.5).round(1)
    array([[0.7, 0. , 0. ],
           [0. , 1. , 0. ]])
    """

    __slots__ = ()

    _rule = "muon"
    _torch = InTorch(
        "Muon",
        (
            "lr",
            "weight_decay",
            "momentum",
            "nesterov",
            "ns_coefficients",
            "eps",
            "ns_steps",
            "adjust_lr",
        ),
        known_by=("ns_coefficients", "ns_steps"),
        own={},
        absent={"maximize": False},
        counts_steps=False,
        renamed={"adjust_lr": "adjust_lr_fn"},
        none_is={"adjust_lr": "original"},
    )
    _decoupled_decay = True

    momentum = Numeric(Interval(0.0, 1.0, high_open=True))
    nesterov = Flag()
    ns_steps = Count(Interval(1, 99))
    ns_coefficients = NumericTriple(_ANY)
    eps = Numeric(Interval())
    adjust_lr = OneOf("match_rms_adamw", "original")

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-3,
        *,
        momentum: Number = 0.95,
        nesterov: bool = True,
        weight_decay: Number = 0.1,
        ns_steps: int = 5,
        ns_coefficients: tuple[Number, Number, Number] = (3.4445, -4.775, 2.0315),
        eps: Number = 1e-7,
        adjust_lr: Literal["match_rms_adamw", "original"] = "match_rms_adamw",
        **shared: Unpack[Shared],
    ) -> None:
        own = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_steps": ns_steps,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "adjust_lr": adjust_lr,
        }
        self._set_up(params, own, weight_decay=weight_decay, **shared)
