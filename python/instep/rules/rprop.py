"""Rprop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep._support.wording import shown
from instep.optimizers.base import Optimizer
from instep.optimizers.containers import Params
from instep.optimizers.hyperparameters import Interval, Number, NumericPair
from instep.optimizers.keywords import Shared
from instep.optimizers.rule import InTorch

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["Rprop"]


class Rprop(Optimizer):
    r"""Rprop: each element has a step size, which grows while its gradient keeps its sign.

    With the states b, zero at first, and k, lr at first, (low, high) = step_sizes::

        s = sign(g) * sign(b)
        k = k * eta+                              s > 0
        k = k * eta-                              s < 0; the element stays where it is: g = 0
        k = min(max(k, low), high)
        p = p - sign(g) * k
        b = g

    Before the rule, ``clip_norm``, ``clip_value``, ``maximize``, ``weight_decay`` and ``l1`` are
    applied to the gradient, in this order.

    It is for gradients of the whole data set. With mini-batches the signs change by chance, and the
    step sizes shrink.

    Parameters
    ----------
    params
        As for `Optimizer`.
    lr : float or callable
        At least 0: the step size before a parameter's first step. Later lr has no effect.
    etas : pair of float or callable
        The factors eta- and eta+ of the step size: 0 < eta- < 1 < eta+.
    step_sizes : pair of float or callable
        The least and the largest step size, at least 0.
    decoupled_l1 : bool
        Must be False, since no step has the length lr.
    weight_decay, l1, clip_value, maximize, clip_norm, nonfinite, ema_decay, copy_to,
    rounding, seed, param_rounding, master_bits, min_8bit_size, state_storage
        As for `Optimizer`.
    state_dtype : dtype or None
        How states are stored: in bfloat16, in float32 for float64 parameters, or, with None, in the
        arithmetic's type (float64 for float64 parameters, float32 for the others). The range of
        float16 is too small for them.

    Raises
    ------
    TypeError, ValueError
        As for `Optimizer`.

    References
    ----------
    M. Riedmiller, H. Braun, "A direct adaptive method for faster backpropagation learning: the
    RPROP algorithm", IEEE International Conference on Neural Networks, 1993.
    C. Igel, M. Hüsken, "Improving the Rprop learning algorithm", ICSC Symposium on Neural
    Computation, 2000 (iRprop-, the form here: no step is taken back).

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.array([1.0, -2.0])
    >>> optimizer = instep.Rprop(w, lr=0.25, etas=(0.5, 2.0))
    >>> for _ in range(3):
    ...     optimizer.step(2 * w)
    >>> w
    array([-0.75, -0.25])
    >>> optimizer.step(2 * w)                # the first element stays: its gradient's sign changed
    >>> w
    array([-0.75,  1.75])
    >>> optimizer.state["0"]["step_size"]
    array([0.5, 2. ])
    """

    __slots__ = ()

    _rule = "rprop"
    _torch = InTorch(
        "Rprop",
        hyperparameters=("lr", "etas", "step_sizes", "maximize"),
        known_by=("etas", "step_sizes"),
        own={"foreach": None, "differentiable": False, "capturable": False},
        absent={"weight_decay": 0.0},
    )
    _no_decoupled_l1 = "no step of Rprop has the length lr"

    etas = NumericPair(
        Interval(0.0, 1.0, low_open=True, high_open=True), Interval(1.0, low_open=True)
    )
    step_sizes = NumericPair(Interval())

    def __init__(
        self,
        params: Params,
        lr: Number = 1e-2,
        *,
        etas: tuple[Number, Number] = (0.5, 1.2),
        step_sizes: tuple[Number, Number] = (1e-6, 50.0),
        weight_decay: Number = 0.0,
        **shared: Unpack[Shared],
    ) -> None:
        own = {"lr": lr, "etas": etas, "step_sizes": step_sizes}
        self._set_up(params, own, weight_decay=weight_decay, **shared)

    @classmethod
    def _check(cls, settings: Mapping[str, Any]) -> None:
        low, high = settings["step_sizes"]
        if not callable(low) and not callable(high) and low > high:
            raise ValueError(
                "step_sizes must be the least step size and the largest, got "
                f"{shown(settings['step_sizes'])}"
            )
