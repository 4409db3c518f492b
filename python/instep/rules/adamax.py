"""Adamax."""

from __future__ import annotations

from typing import TYPE_CHECKING

from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, Numeric, NumericPair
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Adamax"]


class Adamax(Optimizer):
    r"""Adamax: Adam with the largest recent magnitude of the gradient in place of its root mean square.

    With the states m and u, zero at first, at a parameter's t-th step::

        m = beta1 * m + (1 - beta1) * g
        u = max(beta2 * u, |g| + eps)
        p = p - lr / (1 - beta1^t) * m / u

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    It is for gradients that are zero most of the time, such as gradients of embeddings: u depends
    on the large gradients alone.

    Parameters
    ----------
    params, lr
        As for `Optimizer`.
    betas : pair of float or callable
        Each in [0, 1): the shares that a step keeps of the running mean of the gradient, and of the
        largest magnitude.
    eps : float or callable
        At least 0; added to the magnitude. With eps = 0 an element whose gradients have all been
        zero becomes NaN.
    weight_decay, l1, decoupled_l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    state_dtype, rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    D. P. Kingma, J. Ba, "Adam: a method for stochastic optimization", ICLR 2015, Algorithm 2 (eps
    is not in the paper; it is where PyTorch has it).

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Adamax(w, lr=0.5, betas=(0.5, 0.75), eps=0.0)
    >>> optimizer.step(2 * w)
    >>> w
    array([ 0.5, -1.5])
    >>> optimizer.state["0"]["exp_inf"]
    array([2., 4.])
    """

    __slots__ = ()

    _rule = "adamax"
    _torch = InTorch(
        "Adamax",
        hyperparameters=("lr", "betas", "eps", "weight_decay", "maximize"),
        known_by=(),
        own={"foreach": None, "differentiable": False, "capturable": False},
        absent={},
    )

    betas = NumericPair(Interval(0.0, 1.0, high_open=True))
    eps = Numeric(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 2e-3,
        *,
        betas: tuple[Number, Number] = (0.9, 0.999),
        eps: Number = 1e-8,
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "betas": betas, "eps": eps}
        self._set_up(params, own, weight_decay=weight_decay, **shared)
