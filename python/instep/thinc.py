"""The optimizers of thinc, with which spaCy trains, on instep's steps.

In a config, ``@optimizers = "instep.Adam.v1"`` stands where ``@optimizers = "Adam.v1"`` stood; so do
``"instep.RAdam.v1"`` and ``"instep.SGD.v1"``. In a program, `Adam`, `RAdam`, `SGD` and `Optimizer`
stand where those of ``thinc.api`` stood. docs/thinc.md says what differs.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep._support.hosts import host, part
from instep.optimizers.groups import interval_of
from instep.optimizers.hyperparameters import as_float
from instep.optimizers.settings import CLIP_NORM
from instep.optimizers.steps import Steps
from instep.rules import Adam as OfAdam

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["SGD", "Adam", "Optimizer", "RAdam"]

_NAME, _TESTED = "instep.thinc", "8.3 and 9.1"
_thinc = host(_NAME, "thinc", "thinc", "thinc")
_api = host(_NAME, "thinc.api", "thinc", "thinc")
_Base: Any = part(_NAME, _api, "Optimizer", _TESTED)
_to_numpy: Callable[[Any], Any] = part(_NAME, _api, "to_numpy", _TESTED)

# The numbers of a step by thinc's names, and what they may be.
_NUMBERS = {
    "learn_rate": interval_of(OfAdam, "lr"),
    "b1": interval_of(OfAdam, "beta1"),
    "b2": interval_of(OfAdam, "beta2"),
    "eps": interval_of(OfAdam, "eps"),
    "L2": interval_of(OfAdam, "weight_decay"),
}
_SCHEDULES = (*_NUMBERS, "grad_clip")
_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
_MOST_DECAY = 0.9999  # of the averages, as in thinc's Ops.update_averages
_FEW = 256  # keys that are bound before the first look for weights that are gone


class _Bound:
    """The weights of a key, bound to steps of their own: keys may share weights."""

    __slots__ = ("average", "layout", "mom1", "mom2", "rule", "steps", "t", "weights")

    def __init__(
        self, key: object, weights: Any, rule: str, mom1: Any, mom2: Any, average: Any, t: int
    ) -> None:
        self.weights, self.rule, self.t = weights, rule, t
        self.mom1, self.mom2, self.average = mom1, mom2, average
        self.layout = _layout(weights)
        self.steps = Steps()
        self.steps.add_group(rule, ["eps_hat"] if rule == "adam" else [])
        self.steps.append()
        states = {"exp_avg": mom1, "exp_avg_sq": mom2} if rule != "sgd" else {}
        states = {name: flat.reshape(weights.shape) for name, flat in states.items()}
        self.steps.bind(0, weights, states=states, average=average, t=t, name=str(key))


def _layout(weights: Any) -> tuple[Any, ...]:
    """Where an array lies in memory, and how."""
    address = weights.__array_interface__["data"][0]
    return address, weights.shape, weights.strides, weights.dtype


def _references(bound: _Bound) -> int:
    return sys.getrefcount(bound.weights)


def _references_of_ours(weights: Any) -> int:
    """Count the references to weights that nobody else holds."""
    bound = _Bound("", weights, "sgd", None, None, None, 0)
    del weights
    return _references(bound)


# By whether the weights are a view. Those of a model are a view or not, depending on how it was made.
_ALONE = {
    False: _references_of_ours(np.zeros(1)),
    True: _references_of_ours(np.zeros((1, 1))[0]),
}


class Optimizer(_Base):  # type: ignore[misc]
    """The optimizer of thinc, on instep's steps; spaCy takes it for one of thinc.

    Arguments, attributes, schedules and results are those of ``thinc.api.Optimizer``. `mom1`, `mom2`,
    `averages` and `nr_update` hold the state by key, as there.
    """

    __slots__ = ("_bound", "_given", "_most", "_planned")

    _bound: dict[Any, _Bound]
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
            self._planned, self._given = _plan(*given), given
        rule, numbers, clip_norm, l2 = self._planned
        kept = bound
        if (
            bound is None
            or not (same or bound.layout == _layout(weights))
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

    if hasattr(_Base, "step"):  # thinc 9, whose numbers are schedules

        def _given_now(self, key: object) -> tuple[Any, ...]:
            now = {"key": key, "last_score": self.last_score}
            return tuple([getattr(self, name)(self.step, **now) for name in _SCHEDULES])

    else:

        def _given_now(self, key: object) -> tuple[Any, ...]:
            return self.learn_rate, self.b1, self.b2, self.eps, self.L2, self.grad_clip

    def _is_state_of(self, bound: _Bound, key: object, rule: str) -> bool:
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

    def _bind(self, key: object, weights: Any, rule: str) -> _Bound:
        """Bind weights with the state of their key, or with a new state if they have another size."""
        t = self.nr_update.get(key, 0)
        mom1, mom2 = self.mom1.get(key), self.mom2.get(key)
        average = None if self.averages is None else self.averages.get(key)
        if any(old is not None and old.size != weights.size for old in (mom1, mom2, average)):
            mom1 = mom2 = average = None
            t = 0
        if rule != "sgd":
            mom1, mom2 = _state(mom1, weights).reshape(-1), _state(mom2, weights).reshape(-1)
        if self.averages is not None:
            average = _state(average, weights)
        return _Bound(key, weights, rule, mom1, mom2, average, t)

    def _keep(self, key: object, bound: _Bound) -> None:
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
                if _references(one) > _ALONE[one.weights.base is not None]
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


def _state(old: Any, weights: Any) -> Any:
    """Return a state in the form that steps of these weights need; a copy if it has another form."""
    if old is None:
        return np.zeros(weights.shape, weights.dtype)
    array = np.ascontiguousarray(_to_numpy(old), weights.dtype)
    return array if array.shape == weights.shape else array.reshape(weights.shape)


def _plan(
    learn_rate: Any,
    b1: Any,
    b2: Any,
    eps: Any,
    l2: Any,
    grad_clip: Any,
    lr_scale: float,
    use_radam: bool,
    l2_is_weight_decay: bool,
) -> tuple[str, list[dict[str, float]], float | None, float]:
    """Return the rule of a step, its numbers, the limit of the norm, and the L2 term before the norm."""
    found = zip(_NUMBERS.items(), (learn_rate, b1, b2, eps, l2), strict=True)
    lr, b1, b2, eps, l2 = [as_float(value, interval, name) for (name, interval), value in found]
    clip_norm = as_float(grad_clip, CLIP_NORM, "grad_clip") if grad_clip else None
    lr *= lr_scale
    if use_radam or (b1 > 0 and b2 > 0):
        rule = "radam" if use_radam else "adam"
        numbers = {"lr": lr, "beta1": b1, "beta2": b2, "eps": eps}
    elif b2 > 0:
        raise NotImplementedError(
            f"beta1 must be greater than 0 if beta2 is, got {b1!r} and {b2!r}; with both 0, the "
            "step is that of SGD"
        )
    else:
        rule, numbers = "sgd", {"lr": lr, "momentum": 0.0, "dampening": 0.0}
    if l2 and l2_is_weight_decay:
        numbers |= {"weight_decay": l2, "decay_after": True}
    return rule, [numbers], clip_norm, 0.0 if l2_is_weight_decay else l2


def _made(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], **fixed: Any) -> Optimizer:
    """Make an optimizer of the arguments that thinc's function takes."""
    given = _signature(name).bind(*args, **kwargs)
    given.apply_defaults()
    return Optimizer(*given.args, **given.kwargs, **fixed)


def _signature(name: str) -> inspect.Signature:
    return inspect.signature(part(_NAME, _api, name, _TESTED))


def Adam(*args: Any, **kwargs: Any) -> Optimizer:
    """Make the optimizer of ``@optimizers = "instep.Adam.v1"``.

    The arguments and their defaults are those of ``thinc.api.Adam``, and so is the rule:
    `instep.Adam` with ``eps_hat=True``; the gradient of each parameter is clipped by itself.

    Raises
    ------
    TypeError, ValueError
        If there is no such argument, or if a value is neither a number nor a schedule.

    Examples
    --------
    >>> import numpy as np, instep.thinc
    >>> optimizer = instep.thinc.Adam(0.5, grad_clip=0.0, use_averages=False)
    >>> weights, gradient = np.ones(2, "float32"), np.ones(2, "float32")
    >>> weights, gradient = optimizer((0, "W"), weights, gradient)
    >>> weights.round(3), gradient
    (array([0.5, 0.5], dtype=float32), array([0., 0.], dtype=float32))
    """
    return _made("Adam", args, kwargs)


def RAdam(*args: Any, **kwargs: Any) -> Optimizer:
    """Make the optimizer of ``@optimizers = "instep.RAdam.v1"``.

    The arguments and their defaults are those of ``thinc.api.RAdam``. The rule is `instep.RAdam`:
    the first step has t = 1, as in the paper. In thinc it has t = 2.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.
    """
    return _made("RAdam", args, kwargs, use_radam=True)


def SGD(*args: Any, **kwargs: Any) -> Optimizer:
    """Make the optimizer of ``@optimizers = "instep.SGD.v1"``.

    The arguments and their defaults are those of ``thinc.api.SGD``, and so is the rule: `instep.SGD`
    without momentum.

    Raises
    ------
    TypeError, ValueError
        As `Adam`.
    """
    return _made("SGD", args, kwargs, beta1=0.0, beta2=0.0)


for _function in (Adam, RAdam, SGD):  # thinc reads the types of a config's values there
    _function.__signature__ = _signature(_function.__name__)  # type: ignore[attr-defined]
