"""Steps over arrays that another library keeps, for its training loop."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from instep import _core
from instep._support import documentation
from instep._support.checks import mapping
from instep._support.wording import kind
from instep.optimizers.hyperparameters import Nonfinite, as_float
from instep.optimizers.settings import (
    CLIP_NORM,
    EMA_DECAY,
    GRAD_SCALE,
    NONFINITE,
    checked_nonfinite,
)
from instep.optimizers.steps_numbers import Numbers, as_number, as_sequence, chosen
from instep.optimizers.stored_formats import Rounding, checked_seed, rounded_at_random

__all__ = ["Steps"]


@documentation.without_quotes
class Steps:
    """Places that are bound to arrays, and steps over the places that get a gradient.

    An `Optimizer` makes its states, keeps its parameters for good, and manages hyperparameters and
    files. A host program that has states, parameters and hyperparameters of its own needs less: it
    binds places to its arrays, binds a place again whenever it replaces an array, and passes the
    numbers of each step. The arithmetic and the checks of arrays and gradients are those of
    `Optimizer`. A call that raises has changed nothing.

    Places are numbered from 0. The norm of the gradients is added up in the order of the places,
    without the places that are empty or have no gradient. So it makes no difference when a place
    was bound, or which arrays were bound there before.

    Arrays are NumPy's, or tensors in the CPU's memory whose type has DLPack's table of C functions
    (``__dlpack_c_exchange_api__``; PyTorch 2.13's tensors have it). The step works in their memory.
    An array or tensor is kept alive while it is bound. If its memory, shape or dtype has changed
    since it was bound, the next step refuses it. If the negative bit of a PyTorch tensor is set
    (``tensor.is_neg()``), the step reads the numbers in memory, without the sign change: call
    ``resolve_neg()`` first.

    Parameters
    ----------
    rounding, param_rounding : {"stochastic", "nearest"}
        As for `Optimizer`: how states, and parameters, of 8 and 16 bits are rounded.
    seed : int
        As for `Optimizer`. The number of the place is the number of the parameter.

    Raises
    ------
    TypeError, ValueError
        If an argument is no such word or number.

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

    __slots__ = ("__weakref__", "_last", "_steps")

    def __init__(
        self,
        *,
        rounding: Rounding = "stochastic",
        param_rounding: Rounding = "nearest",
        seed: int = 0,
    ) -> None:
        at_random = rounded_at_random(rounding, param_rounding)
        self._steps = _core.make_steps(at_random, checked_seed(seed))
        self._last: Numbers | None = None  # the numbers checked last

    @staticmethod
    def rules() -> dict[str, dict[str, Any]]:
        """Return the rules by name, each with its ``hyperparameters``, ``options`` and ``states``.

        ``scalar_states`` are the states that are one number; ``joint_states`` are those among them
        that all places of the rule share. ``kinds`` has a dict for each other state, which says how
        it may be stored: ``signed`` (negative numbers occur), ``eight_bits``, ``narrow`` ("any"
        dtype, "bfloat16" alone, "none", or "iterate", which is as exact as the parameter), ``root``
        (in float16 it is the square root), and ``in_16_bits``, how it is rounded there: as is
        "chosen" by ``rounding``, always to "nearest", or always "stochastic".

        Examples
        --------
        >>> import instep
        >>> instep.Steps.rules()["sgd"]["states"]
        ('momentum_buffer',)
        """
        return _core.rules()

    @staticmethod
    def states(rule: str, options: Iterable[str] = ()) -> tuple[str, ...]:
        """Return the names of the states that a rule has with these options; scalar states come last.

        Raises
        ------
        TypeError, ValueError
            As `add_group`.

        Examples
        --------
        >>> import instep
        >>> instep.Steps.states("adam", ["amsgrad"])
        ('exp_avg', 'exp_avg_sq', 'max_exp_avg_sq')
        """
        return _core.states_of(*chosen(rule, options))

    def add_group(self, rule: str, options: Iterable[str] = ()) -> int:
        """Make a group, and return its number.

        Parameters
        ----------
        rule : str
            The rule's name in `rules`.
        options : iterable of str
            The options to switch on.

        Raises
        ------
        TypeError, ValueError
            If there is no such rule or option, or if the options don't go together.
        """
        rule, options = chosen(rule, options)
        return self._steps.add_group(rule, options)

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
        TypeError, ValueError
            As `add_group`, and if a place of the group is bound.
        IndexError
            If there is no such group.
        """
        group = as_number("group", group)
        rule, options = chosen(rule, options)
        self._steps.set_group(group, rule, options)

    def append(self, count: int = 1) -> None:
        """Add empty places after the present places.

        Raises
        ------
        TypeError, ValueError
            If `count` is not an int, is negative, or is too large for any memory.
        """
        self._steps.append(as_number("count", count))

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
        t: Any = 0,
        name: str | None = None,
    ) -> None:
        """Bind a place to a parameter and its states, whatever it was bound to before.

        Gradients that were accumulated for the place are dropped.

        Parameters
        ----------
        place : int
            Its number.
        parameter : array
            Writeable, of float64, float32, float16 or bfloat16, of any shape and strides.
        group : int
            The group whose rule and numbers the steps of this place use.
        states : dict, optional
            Name of the state -> writeable array of the parameter's shape, for each state that the
            rule has with the group's options. Its dtype is float64 for float64 parameters, float32
            for the others, or a narrower one. A state in 8 bits, such as ``exp_avg``, is an array
            of codes (C-contiguous int8, or uint8 for a state that is never negative) with its
            units beside it, ``exp_avg_unit``: float32, one for each 64 elements
            (`instep.storage.encode` makes both). In float16, a second moment is the square root.
            ``remainder`` (int8 or int16) of a bfloat16 parameter has the next 8 or 16
            bits of the parameter, as `Optimizer` has them with ``master_bits``. The states under
            ``scalar_states`` in `rules` are arrays of float64 without axes; those under
            ``joint_states`` are one array for all places of the rule. A new state is zero.
        average : array, optional
            The exponential moving average, in float64 for float64 parameters and in float32 for the
            others.
        copy : array, optional
            An array of a narrower dtype than the parameter's; each step rounds the parameter into
            it.
        t : int or array
            The number of steps that the parameter has already had; at least 0. An array of float32
            or float64 without axes is the host's own count: each step reads it before and writes it
            after, if the place has a gradient. A float32 stays at 2**24, the last whole number that
            it can count to.
        name : str, optional
            The parameter's name in errors; the place's number by default.

        Raises
        ------
        TypeError, ValueError, IndexError
            If an array can't be used, a state is missing, or there is no such place or group; the
            place is unchanged then. Arrays that share memory are refused by the next step.
        """
        place, group = as_number("place", place), as_number("group", group)
        if not hasattr(t, "ndim") or isinstance(t, np.generic):
            t = as_number("t", t)
        states = {} if states is None else dict(mapping("states", states))
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name must be a str, got {kind(name)}")
        # Half a surrogate pair, as in a name that was no text, is shown as its number.
        who = str(place) if name is None else name.encode("utf-8", "backslashreplace").decode()
        self._steps.bind(place, who, group, parameter, states, average, copy, t)

    def unbind(self, place: int) -> None:
        """Empty a place: release its arrays, and drop the gradients accumulated for it.

        Raises
        ------
        IndexError
            If there is no such place.
        """
        self._steps.unbind(as_number("place", place))

    def is_bound(self, place: int) -> bool:
        """Tell whether a place is bound; raise IndexError if there is no such place."""
        return self._steps.is_bound(as_number("place", place))

    def t(self, place: int) -> int:
        """Return the number of steps that the parameter at a place has had; 0 if the place is empty.

        Raises
        ------
        IndexError
            If there is no such place.
        """
        return self._steps.t(as_number("place", place))

    def changed_places(self) -> list[int]:
        """Return the places of which an array or tensor has been given other memory, shape or dtype.

        The next step would refuse them; bind them again.

        Raises
        ------
        ValueError
            If arrays share memory.
        """
        return self._steps.changed_places()

    def step(
        self,
        gradients: Sequence[Any] | None,
        numbers: Sequence[Mapping[str, float]],
        *,
        clip_norm: float | None = None,
        grad_scale: float = 1.0,
        ema_decay: float | None = None,
        nonfinite: Nonfinite = "propagate",
    ) -> None:
        """Take one step over the places that get a gradient.

        Parameters
        ----------
        gradients : sequence of array or None
            One entry for each place: an array, or None if the place is empty or has no gradient. If
            `gradients` is None, the step uses the accumulated gradients.
        numbers : sequence of dict
            For each group the hyperparameters of its rule, with the names in `rules`, and any of
            ``clip_value``, ``weight_decay``, ``l1``, ``decoupled_l1``, ``maximize`` and
            ``decay_after``. Each may be any value that the optimizers take, except a schedule. If an
            option is off, a hyperparameter of the same name must be 0, or None if it may be None.
            With ``decay_after=True``, ``weight_decay`` is no term of the gradient: after the rule, the
            parameter is multiplied by ``1 - lr*weight_decay``. Rules that have ``weight_decay``
            themselves refuse it, and so does Rprop.
        clip_norm, grad_scale, nonfinite
            As for `Optimizer` and its ``step``.
        ema_decay : float, optional
            From 0 to 1: the share of the averages that the step keeps. Required if a
            place has an average.

        Raises
        ------
        TypeError, ValueError
            If a gradient or a number can't be used, if arrays share memory, or if the memory,
            layout or dtype of a bound array has changed since it was bound. No number has changed
            then.
        FloatingPointError
            With ``nonfinite="raise"``, if a gradient has an infinity or NaN.
        """
        # Ask the core: a copy of its answer here may be out of date, after a Ctrl-C or because of
        # another thread.
        groups, last = self._steps.rules_of_groups, self._last
        if last is None or not last.are_those_of(groups, numbers):
            self._last = last = Numbers.checked(groups, numbers)
        limit = math.nan if clip_norm is None else as_float(clip_norm, CLIP_NORM, "clip_norm")
        if ema_decay is not None:
            ema_decay = as_float(ema_decay, EMA_DECAY, "ema_decay")
        elif count := self._steps.averages:
            raise ValueError(
                f"ema_decay must be {EMA_DECAY}, as {count} of {len(self)} places have an average, "
                "got None; pass the share of the average that the step keeps"
            )
        else:
            ema_decay = 0.0
        grad_scale = as_float(grad_scale, GRAD_SCALE, "grad_scale")
        extras = (limit, ema_decay, NONFINITE.index(checked_nonfinite(nonfinite)))
        taken = None if gradients is None else as_sequence(gradients)
        self._steps.step(taken, last.in_order, extras, grad_scale)

    def accumulate(self, gradients: Sequence[Any]) -> None:
        """Add gradients to the gradients of the next step.

        Parameters
        ----------
        gradients : sequence of array or None
            As for `step`.

        Raises
        ------
        TypeError, ValueError
            As `step`; nothing has been added then.
        """
        self._steps.accumulate(as_sequence(gradients))

    def discard_accumulated(self) -> None:
        """Drop the gradients accumulated since the last step."""
        self._steps.discard_accumulated()

    def _share_team(self, team: _core.Team | None) -> None:
        """Step on the threads of another library from now on; on the calling thread alone if None.

        `_core.find_team` finds the team of a library whose computations the host's loop waits for.
        The number of threads is that of the library, asked at each step on the thread that steps.
        """
        self._steps.share_team(team)

    @property
    def step_count(self) -> int:
        """Number of completed steps."""
        return self._steps.step_count

    @property
    def skipped_steps(self) -> int:
        """Number of steps that changed nothing, under ``nonfinite="skip"``."""
        return self._steps.skipped_steps

    @property
    def grad_norm(self) -> float | None:
        """Euclidean norm of the last step's gradients, before clipping; None if none was computed."""
        return self._steps.grad_norm

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "Steps can't be copied or pickled, since the arrays belong to the host program; make "
            "another Steps and bind its places"
        )
