"""thinc's optimizer on instep's steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from instep._support import documentation
from instep._support.reals import is_fixed
from instep.thinc.bound import ALONE, Bound, layout_of, references, state_like
from instep.thinc.host import BaseOptimizer
from instep.thinc.numbers import NUMBERS, planned

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Optimizer"]

_SCHEDULES = (*NUMBERS, "grad_clip")
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_MOST_DECAY = 0.9999  # of the averages, as in thinc's Ops.update_averages
_FEW = 256  # keys that are bound before the first look for weights that are gone


@documentation.without_quotes
class Optimizer(BaseOptimizer):  # type: ignore[misc]
    """The optimizer of thinc, on instep's steps; spaCy takes it for one of thinc.

    Attributes, schedules and results are those of ``thinc.api.Optimizer``. `mom1`, `mom2`, `averages`
    and `nr_update` hold the state by key, as there. `Adam`, `RAdam` and `SGD` make one.

    Parameters
    ----------
    *args, **kwargs
        As for ``thinc.api.Optimizer``.

    Raises
    ------
    TypeError, ValueError
        If there is no such argument, or if a value is neither a number nor a schedule.

    Examples
    --------
    >>> import numpy as np, instep.thinc
    >>> optimizer = instep.thinc.Optimizer(0.5, beta1=0.0, beta2=0.0, L2=0.0, grad_clip=0.0)
    >>> optimizer((0, "W"), np.ones(2, "float32"), np.ones(2, "float32"))[0]
    array([0.5, 0.5], dtype=float32)
    """

    __slots__ = ("_bound", "_given", "_most", "_planned")

    _bound: dict[Any, Bound]
    _given: tuple[Any, ...] | None
    _most: int
    _planned: tuple[str, list[dict[str, float]], float | None, float]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Make an optimizer that has bound nothing yet; also for a copy, or for one that was stored."""
        self: Self = super().__new__(cls)
        self._bound, self._given, self._most = {}, None, _FEW
        return self

    def __call__(
        self, key: tuple[int, str], weights: Any, gradient: Any, *, lr_scale: float = 1.0
    ) -> tuple[Any, Any]:
        """Take a step over the weights of a key, in place; set the gradient to 0, and return both.

        Parameters
        ----------
        key : tuple
            The parameter: usually the number of its node, and its name.
        weights, gradient : array
            Of the same shape. Arrays of float32 and of float64 in the CPU's memory are stepped by
            instep, all others by thinc.
        lr_scale : float
            The learning rate is multiplied by it.

        Raises
        ------
        TypeError, ValueError
            If an array or a number can't be used. Nothing has changed then.
        NotImplementedError
            If ``beta1`` is 0 and ``beta2`` is not.
        """
        if len(gradient) < 1:
            return weights, gradient
        bound = self._bound.get(key)
        same = bound is not None and bound.weights is weights
        if not ((same or _is_ours(weights)) and _is_alike(gradient, weights)):
            found: tuple[Any, Any] = super().__call__(key, weights, gradient, lr_scale=lr_scale)
            return found
        given = (*self._given_now(key), lr_scale, self.use_radam, self.L2_is_weight_decay)
        if given != self._given:
            # An array without axes may have another number at the next call.
            fixed = all(map(is_fixed, given))
            self._planned, self._given = planned(*given), given if fixed else None
        rule, numbers, clip_norm, l2 = self._planned
        kept = bound
        if (
            bound is None
            or not (same or bound.layout == layout_of(weights))
            or not self._is_state_of(bound, key, rule)
        ):
            bound = self._bind(key, weights, rule)
        if not gradient.flags.writeable:
            raise ValueError(
                "gradient must be writeable, as each step sets it to 0, got a read-only array"
            )
        terms = gradient
        if l2:  # as in thinc, before the norm is taken
            terms = l2 * weights
            terms += gradient
        ema_decay = None
        if bound.average is not None:
            t = bound.t + 1
            ema_decay = min((1.0 + t) / (10.0 + t), _MOST_DECAY)
        bound.steps.step([terms], numbers, clip_norm=clip_norm, ema_decay=ema_decay)
        gradient.fill(0)
        bound.t += 1
        self.nr_update[key] = bound.t
        if bound is not kept:
            self._keep(key, bound)
        return weights, gradient

    if hasattr(BaseOptimizer, "step"):  # thinc 9, whose numbers are schedules

        def _given_now(self, key: object) -> tuple[Any, ...]:
            now = {"key": key, "last_score": self.last_score}
            return tuple([getattr(self, name)(self.step, **now) for name in _SCHEDULES])

    else:

        def _given_now(self, key: object) -> tuple[Any, ...]:
            return self.learn_rate, self.b1, self.b2, self.eps, self.L2, self.grad_clip

    def _is_state_of(self, bound: Bound, key: object, rule: str) -> bool:
        """Tell whether what the attributes hold for a key is still what has been bound."""
        averages = self.averages
        average = None if averages is None else averages.get(key, averages)  # which is no array
        return (
            bound.rule is rule
            and self.nr_update.get(key) == bound.t
            and self.mom1.get(key) is bound.mom1
            and self.mom2.get(key) is bound.mom2
            and average is bound.average
        )

    def _bind(self, key: object, weights: Any, rule: str) -> Bound:
        """Bind weights with the state of their key, or with a new state if they have another size."""
        t = self.nr_update.get(key, 0)
        mom1, mom2 = self.mom1.get(key), self.mom2.get(key)
        average = None if self.averages is None else self.averages.get(key)
        if any(old is not None and old.size != weights.size for old in (mom1, mom2, average)):
            mom1 = mom2 = average = None
            t = 0
        if rule != "sgd":
            mom1, mom2 = (
                state_like(mom1, weights).reshape(-1),
                state_like(mom2, weights).reshape(-1),
            )
        if self.averages is not None:
            average = state_like(average, weights)
        return Bound(key, weights, rule, mom1, mom2, average, t)

    def _keep(self, key: object, bound: Bound) -> None:
        """Keep what has been bound, and its state. Weights that nobody else holds are let go, at times."""
        for state, array in (
            (self.mom1, bound.mom1),
            (self.mom2, bound.mom2),
            (self.averages, bound.average),
        ):
            if array is not None:
                state[key] = array
            elif state is not None:
                state.pop(key, None)
        if len(self._bound) >= self._most:
            self._bound = {
                known: one
                for known, one in self._bound.items()
                if references(one) > ALONE[one.weights.base is not None]
            }
            self._most = max(_FEW, 2 * len(self._bound))
        self._bound[key] = bound

    def __getstate__(self) -> tuple[Any, dict[str, Any]]:
        """Return what copies and pickles take along: all that is not bound to memory."""
        of_classes = [vars(cls).get("__slots__", ()) for cls in type(self).__mro__]
        names = {name for slots in of_classes for name in slots}.difference(Optimizer.__slots__)
        return getattr(self, "__dict__", None), {
            name: getattr(self, name) for name in sorted(names) if hasattr(self, name)
        }


def _is_ours(weights: Any) -> bool:
    return type(weights) is np.ndarray and weights.dtype in _FLOATS


def _is_alike(gradient: Any, weights: Any) -> bool:
    return type(gradient) is np.ndarray and gradient.shape == weights.shape
