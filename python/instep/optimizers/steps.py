"""Steps over arrays that somebody else keeps: what optimizers, and the loops of other libraries, stand on."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from instep import _core
from instep._support import documentation
from instep._support.wording import difference
from instep.optimizers.hyperparameters import as_float
from instep.optimizers.settings import (
    CLIP_NORM,
    EMA_DECAY,
    GRAD_SCALE,
    NONFINITE,
    checked_nonfinite,
)

__all__ = ["Steps"]

_TERMS = {"clip_value": math.inf, "weight_decay": 0.0, "l1": 0.0, "maximize": False}


@documentation.without_quotes
class Steps:
    """Places that are bound to arrays, and steps over those that are given a gradient.

    An `Optimizer` makes its states, keeps its parameters for good, and looks after hyperparameters
    and files. A host that has states, parameters and hyperparameters of its own needs less: it binds
    places to its arrays, binds a place again whenever it replaces an array, and gives the numbers of
    each step. The arithmetic is that of `Optimizer`, and so are the checks of arrays and gradients;
    a call that raises has changed nothing.

    Places are numbered from 0. The norm of the gradients is added up in the order of the places, and
    a place that is empty or has no gradient leaves no gap in this order: it makes no difference when
    a place was bound, or what was bound there before.

    Arrays are NumPy's, or tensors in the CPU's memory whose type has DLPack's table of C functions
    (``__dlpack_c_exchange_api__``; PyTorch 2.13's tensors have it). The step works in their memory.
    An array or tensor is kept for as long as it is bound; one that has been given other memory,
    another shape or another dtype since then is refused by the next step.

    See Also
    --------
    Optimizer : for training loops of your own.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w, m, v = np.ones(3), np.zeros(3), np.zeros(3)
    >>> steps = instep.Steps()
    >>> adam = steps.add_group("adam")
    >>> steps.append(1)
    >>> steps.bind(0, w, group=adam, states={"exp_avg": m, "exp_avg_sq": v})
    >>> steps.step([2 * w], [{"lr": 0.5, "beta1": 0.9, "beta2": 0.999, "eps": 0.0}])
    >>> w.round(12), m, steps.t(0)
    (array([0.5, 0.5, 0.5]), array([0.2, 0.2, 0.2]), 1)

    """

    __slots__ = ("__weakref__", "_groups", "_steps")

    def __init__(self) -> None:
        self._steps = _core.make_steps()
        self._groups: list[tuple[tuple[str, ...], bool]] = []  # names of numbers, decoupled decay

    @staticmethod
    def rules() -> dict[str, dict[str, tuple[str, ...]]]:
        """Return the rules by name, each with its ``hyperparameters``, ``options`` and ``states``.

        Examples
        --------
        >>> import instep
        >>> instep.Steps.rules()["sgd"]["states"]
        ('momentum_buffer',)
        """
        return _core.rules()

    def add_group(self, rule: str, options: Iterable[str] = ()) -> int:
        """Make a group, and return its number.

        Parameters
        ----------
        rule : str
            The rule's name in `rules`.
        options : iterable of str
            Those of the rule's options that are on.

        Raises
        ------
        ValueError
            If there is no such rule or option, or if the options don't go together.
        """
        options = tuple(options)
        group = self._steps.add_group(rule, options)
        self._groups.append(_numbers_of(rule, options))
        return group

    def set_group(self, group: int, rule: str, options: Iterable[str] = ()) -> None:
        """Give a group another rule or other options. None of its places may be bound.

        Parameters
        ----------
        group : int
            Its number.
        rule, options
            As for `add_group`.

        Raises
        ------
        ValueError
            As `add_group`, and if a place of the group is bound.
        IndexError
            If there is no such group.
        """
        options = tuple(options)
        self._steps.set_group(group, rule, options)
        self._groups[group] = _numbers_of(rule, options)

    def append(self, count: int = 1) -> None:
        """Make more places, empty ones, after those that are there.

        Raises
        ------
        ValueError
            If `count` is negative, or larger than any memory.
        """
        self._steps.append(count)

    def __len__(self) -> int:
        """Return the number of places."""
        return len(self._steps)

    def bind(
        self,
        place: int,
        parameter: Any,
        *,
        group: int = 0,
        states: Mapping[str, Any] | None = None,
        average: Any = None,
        copy: Any = None,
        t: int = 0,
        name: str | None = None,
    ) -> None:
        """Bind a place to a parameter and its states, whatever it was bound to before.

        Gradients that were accumulated for the place are forgotten.

        Parameters
        ----------
        place : int
            Its number.
        parameter : array
            Writeable, of float64, float32, float16 or bfloat16, of any shape and strides.
        group : int
            The group whose rule and numbers the place is stepped by.
        states : dict, optional
            Name of the state -> writeable array of the parameter's shape, for each state that the
            rule has with the group's options. Its dtype is float64 for float64 parameters, float32
            for the others, or a narrower one. A new state is zero.
        average : array, optional
            Holds the exponential moving average, in float64 for float64 parameters and in float32
            for the others.
        copy : array, optional
            Of a narrower dtype than the parameter; each step rounds the parameter into it.
        t : int
            How many steps the parameter has had; at least 0.
        name : str, optional
            What errors call the parameter; the place's number by default.

        Raises
        ------
        TypeError, ValueError, IndexError
            If an array can't be used as it is, a state is missing, or there is no such place or
            group. The place is as it was then. Arrays that share memory are found by the next step.
        """
        self._steps.bind(
            place, str(place) if name is None else name, group, parameter, dict(states or {}), average, copy, t
        )  # fmt: skip

    def unbind(self, place: int) -> None:
        """Empty a place, and let go of its arrays and of what was accumulated for it.

        Raises
        ------
        IndexError
            If there is no such place.
        """
        self._steps.unbind(place)

    def is_bound(self, place: int) -> bool:
        """Tell whether a place is bound; raise IndexError if there is no such place."""
        return self._steps.is_bound(place)

    def t(self, place: int) -> int:
        """Return how many steps the parameter at a place has had; 0 if the place is empty.

        Raises
        ------
        IndexError
            If there is no such place.
        """
        return self._steps.t(place)

    def step(
        self,
        gradients: Sequence[Any] | None,
        numbers: Sequence[Mapping[str, float]],
        *,
        clip_norm: float | None = None,
        grad_scale: float = 1.0,
        ema_decay: float = 0.0,
        nonfinite: str = "propagate",
    ) -> None:
        """Take one step over the places that are given a gradient.

        Parameters
        ----------
        gradients : sequence of array or None
            One for each place; None for no gradient, and for each place that is empty. If
            `gradients` is None, the step uses what has been accumulated.
        numbers : sequence of dict
            For each group the hyperparameters of its rule, as `rules` names them, and those of
            ``clip_value``, ``weight_decay``, ``l1`` and ``maximize`` that are wanted. Whether a
            number is in the range that `Optimizer` asks for is left to the caller.
        clip_norm, grad_scale, nonfinite
            As for `Optimizer` and its ``step``.
        ema_decay : float
            For the places that have an average.

        Raises
        ------
        TypeError, ValueError
            If a gradient or a number can't be taken, arrays share memory, or an array that is bound
            is no longer what it was; nothing has changed then.
        FloatingPointError
            With ``nonfinite="raise"``, if a gradient has an infinity or NaN.
        """
        if len(numbers) != len(self._groups):
            raise ValueError(
                f"numbers has {len(numbers)} entries; one for each of {len(self._groups)} groups is wanted"
            )
        in_order = [
            _in_order(k, names, numbers[k], decoupled=decoupled)
            for k, (names, decoupled) in enumerate(self._groups)
        ]
        extras = (
            math.nan if clip_norm is None else as_float(clip_norm, CLIP_NORM, "clip_norm"),
            as_float(ema_decay, EMA_DECAY, "ema_decay"),
            NONFINITE.index(checked_nonfinite(nonfinite)),
        )
        scale = as_float(grad_scale, GRAD_SCALE, "grad_scale")
        self._steps.step(gradients, in_order, extras, scale)

    def accumulate(self, gradients: Sequence[Any]) -> None:
        """Add gradients to those that the next step takes.

        Parameters
        ----------
        gradients : sequence of array or None
            As for `step`.

        Raises
        ------
        TypeError, ValueError
            As `step`; nothing has been added then.
        """
        self._steps.accumulate(gradients)

    def discard_accumulated(self) -> None:
        """Forget what has been accumulated since the last step."""
        self._steps.discard_accumulated()

    @property
    def step_count(self) -> int:
        """Completed steps."""
        return self._steps.step_count

    @property
    def skipped_steps(self) -> int:
        """Steps that changed nothing, under ``nonfinite="skip"``."""
        return self._steps.skipped_steps

    @property
    def grad_norm(self) -> float | None:
        """Euclidean norm of the last step's gradients, before clipping; None if none was computed."""
        return self._steps.grad_norm


def _numbers_of(rule: str, options: tuple[str, ...]) -> tuple[tuple[str, ...], bool]:
    return _core.rules()[rule]["hyperparameters"], "decoupled_decay" in options


def _in_order(
    group: int, names: tuple[str, ...], numbers: Mapping[str, float], *, decoupled: bool
) -> list[float]:
    """Return a group's numbers as the core takes them."""
    needed = [name for name in names if name not in _TERMS]
    given = set(numbers)
    if not given.issuperset(needed) or given.difference(names, _TERMS):
        wanted = (*needed, *(name for name in (*names, *_TERMS) if name in given - set(needed)))
        raise ValueError(
            f"the numbers of group {group} are not those of its rule; {difference(numbers, wanted)}"
        )
    found = [float(numbers.get(name, 0.0)) for name in names]
    terms = {name: float(numbers.get(name, off)) for name, off in _TERMS.items()}
    if decoupled:  # the rule's own, none of the gradient's
        terms["weight_decay"] = 0.0
    return [*found, *terms.values()]
