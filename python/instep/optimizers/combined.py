"""Several optimizers, each for parameters of its own, stepped as one."""

from __future__ import annotations

import copy
import copyreg
import reprlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from instep._support import documentation
from instep._support.wording import kind, text_of
from instep.optimizers import combined_state
from instep.optimizers.base import Optimizer
from instep.optimizers.combined_state import require_no_limits
from instep.optimizers.containers import GRADIENTS, Accumulated, Gradients
from instep.optimizers.copying import attributes
from instep.optimizers.hyperparameters import Nonfinite, Number, as_float, check_number_or_none
from instep.optimizers.near_misses import add_near_misses_of_each, without_near_misses
from instep.optimizers.settings import CLIP_NORM, GRAD_SCALE, checked_nonfinite
from instep.optimizers.several import Several

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Combined"]


@documentation.without_quotes
class Combined(Several):
    """Several optimizers over different parameters, stepped as one.

    One call of `step` steps all of them: the norm of `clip_norm` goes over the gradients of all, in
    the order of the optimizers and of each one's parameters, and everything of all is checked
    before the first array is written. If a call raises, nothing has changed in any of them.

    The optimizers are made as usual. They keep their rules, hyperparameters, schedules and step
    counts: ``combined.optimizers[0].lr = 0.1`` sets a hyperparameter. Each can still be stepped by
    itself, and groups can be added to it.

    Parameters
    ----------
    *optimizers : Optimizer
        At least one, each once, without `clip_norm` and `nonfinite` of their own. No array may
        share memory with an array of another optimizer.
    clip_norm : float, callable or None
        Greater than 0. If the Euclidean norm of all gradients of all optimizers together exceeds
        this limit, the gradients are scaled down to the limit. A callable is called with the
        `step_count` of the Combined.
    nonfinite : {"propagate", "skip", "raise"}
        What to do if a gradient of any optimizer, rounded to its parameter's arithmetic, is
        infinite or NaN: go on computing ("propagate"); change nothing in any optimizer and count
        the step in `skipped_steps` of the Combined ("skip"; the accumulated gradients of all are
        dropped, and the counts of the optimizers stay as they are); or change nothing and raise
        FloatingPointError ("raise").

    Raises
    ------
    TypeError, ValueError
        If an argument is not an optimizer of instep, is there twice, or has limits of its own; if
        two optimizers have arrays that share memory; if a limit is out of its range.

    Notes
    -----
    `params`, `state`, `averages` and `accumulated` have the arrays of all optimizers by name. If
    two optimizers have a parameter of the same name, every name has the number of its optimizer in
    front, such as "0.w" and "1.w".

    Examples
    --------
    >>> import numpy as np, instep
    >>> w, b = np.ones((2, 2)), np.zeros(2)
    >>> combined = instep.Combined(
    ...     instep.Muon({"w": w}, lr=0.1), instep.AdamW({"b": b}, lr=0.1), clip_norm=1.0
    ... )
    >>> combined.step({"w": np.full((2, 2), 3.0), "b": np.full(2, 4.0)})
    >>> f"{combined.grad_norm:.4f}"                         # of both, before clipping
    '8.2462'
    >>> b
    array([-0.1, -0.1])
    >>> combined.step([{"w": np.zeros((2, 2))}, None])      # one container for each optimizer
    >>> combined.step_count, combined.optimizers[1].step_count
    (2, 2)
    """

    # This makes combined.lr = 0.1, which would have no effect, an error.
    __slots__ = ("__weakref__",)

    def __init__(
        self,
        *optimizers: Optimizer,
        clip_norm: Number | None = None,
        nonfinite: Nonfinite = "propagate",
    ) -> None:
        _require_optimizers(optimizers)
        clip_norm = check_number_or_none("clip_norm", clip_norm, CLIP_NORM)
        self._set_up(optimizers, clip_norm, checked_nonfinite(nonfinite))

    # ---- stepping ------------------------------------------------------------------------------

    def step(
        self, grads: Gradients | Accumulated = GRADIENTS, *, grad_scale: float | None = None
    ) -> None:
        """Take one step of all optimizers: change the parameters in place.

        Each optimizer steps as its own `Optimizer.step` does, with the scale of the common norm.

        Parameters
        ----------
        grads : dict, list or tuple
            A dict with an entry for each name of `params`, such as "encoder.0.w", if no two
            optimizers have a parameter of the same name. Or a list or tuple with a container for
            each optimizer, as for its own `Optimizer.step`, or None if none of its parameters has
            a gradient. Without `grads` the step uses the accumulated gradients alone.
        grad_scale : float, optional
            As for `Optimizer.step`.

        Raises
        ------
        TypeError, ValueError
            As `Optimizer.step`, if anything of any optimizer can't be used, also a gradient that
            shares memory with an array of another optimizer; if an optimizer has a `clip_norm` or
            `nonfinite` of its own. Nothing has changed then in any of them.
        FloatingPointError
            With ``nonfinite="raise"``, if a gradient has an infinity or NaN. Nothing has changed.
        RuntimeError
            Inside ``averaged()`` of the Combined or of one of the optimizers; from a schedule or a
            signal handler, in the middle of a step of one of them.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w, b = np.ones(2), np.ones(1)
        >>> combined = instep.Combined(instep.SGD([w], lr=0.5), instep.SGD([b], lr=0.25))
        >>> combined.step([[np.ones(2)], [np.ones(1)]])
        >>> w, b
        (array([0.5, 0.5]), array([0.75]))
        """
        scale = 1.0 if grad_scale is None else as_float(grad_scale, GRAD_SCALE, "grad_scale")
        if grads is GRADIENTS:
            self._plan.step_accumulated(self, scale)
        else:
            self._plan.step(grads, self, scale)

    def accumulate(self, grads: Gradients) -> None:
        """Add the gradients of a micro-batch to the gradients of the next `step`, in all optimizers.

        The sums are those of the optimizers' own `Optimizer.accumulate`.

        Parameters
        ----------
        grads : dict, list or tuple
            As for `step`.

        Raises
        ------
        TypeError, ValueError
            As `step`; nothing has been added then.
        """
        self._plan.accumulate(grads)

    def discard_accumulated(self) -> None:
        """Drop the gradients that were accumulated in any of the optimizers since its last step."""
        self._plan.discard_accumulated()

    def refresh_copies(self) -> None:
        """Round the parameters of all optimizers into the arrays of their ``copy_to``.

        Raises
        ------
        ValueError
            If a parameter or a copy has been reshaped, moved or made read-only.
        """
        self._plan.refresh_copies()

    def averaged(self) -> AbstractContextManager[None]:
        """Put the averages of all optimizers in place of their parameters, for a ``with`` block.

        The block is that of `Optimizer.averaged`, over all optimizers at once. Parameters of an
        optimizer without averages are shown as they are. No optimizer can be stepped in the block.

        Raises
        ------
        ValueError
            If no optimizer has averages.
        RuntimeError
            Inside another such block of the Combined or of one of the optimizers.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w, b = np.zeros(1), np.zeros(1)
        >>> optimizers = instep.SGD([w], lr=1.0, ema_decay=0.75), instep.SGD([b], lr=1.0)
        >>> combined = instep.Combined(*optimizers)
        >>> combined.step([[np.array([-4.0])], [np.array([-4.0])]])
        >>> with combined.averaged():
        ...     print(w, b)
        [1.] [4.]
        """
        self._require_averages()
        self._warn_of_replaced()
        return self._plan.averaged()

    def _require_averages(self) -> None:
        """Raise ValueError if no optimizer has averages."""
        if not any(o.ema_decay is not None or o._shows_iterate for o in self._optimizers):
            raise ValueError(
                "an optimizer of the Combined must have averages, got none that has; make one with "
                "ema_decay"
            )

    def end_averaged(self) -> None:
        """Put the weights back in all optimizers if any block shows their averages."""
        self._plan.end_averaged()

    # ---- storing -------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs besides the parameters, as plain data.

        Returns
        -------
        dict
            ``schema`` (version of this layout), ``step_count``, ``skipped_steps`` and ``clip_norm``
            of the Combined, and ``optimizers``, a list with the `Optimizer.state_dict` of each.
        """
        self._warn_of_replaced()
        with self._plan.reading():
            return combined_state.state_dict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned; with the same parameters, the run goes on to the bit.

        Each optimizer must be as for `Optimizer.load_state_dict`, in the same order. Everything of
        all is checked before the first change.

        Raises
        ------
        TypeError, ValueError
            If anything doesn't fit; nothing has changed then in any optimizer.
        RuntimeError
            Inside ``averaged()``.

        Examples
        --------
        >>> import numpy as np, instep
        >>> def made(lr):
        ...     return instep.Combined(instep.SGD([np.ones(2)], lr=lr), instep.Adam([np.ones(1)]))
        >>> first, second = made(0.5), made(0.25)
        >>> first.step([[np.ones(2)], None])
        >>> second.load_state_dict(first.state_dict())
        >>> second.step_count, second.optimizers[0].lr
        (1, 0.5)
        """
        self._warn_of_replaced()
        with self._plan:
            combined_state.checked(self, state_dict)(3)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy with the optimizers; only ``copy.copy`` shares them."""
        with self._plan.reading():
            return copyreg.__newobj__, (type(self),), self._taken_apart()  # type: ignore[attr-defined]

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy everything between two steps; arrays copied together with the optimizers are the copies' arrays."""
        with self._plan.reading():
            twin = type(self).__new__(type(self))
            memo[id(self)] = twin  # first: a schedule may lead back here
            twin.__setstate__(copy.deepcopy(self._taken_apart(), memo))
            return twin

    def __setstate__(self, parts: dict[str, Any]) -> None:
        self._set_up(tuple(parts["optimizers"]), parts["clip_norm"], parts["nonfinite"])
        self._plan.set_counts(*parts["counts"])
        for name, value in parts["attributes"].items():
            setattr(self, name, value)

    def _taken_apart(self) -> dict[str, Any]:
        self._plan.refuse_averages("copy")
        return {
            "optimizers": list(self._optimizers),
            "clip_norm": self.clip_norm,
            "nonfinite": self.nonfinite,
            "counts": (self.step_count, self.skipped_steps),
            "attributes": attributes(self),
        }

    def _require_no_limits(self) -> None:
        """Raise ValueError for an optimizer with limits of its own; the core has seen one with them."""
        for k, optimizer in enumerate(self._optimizers):
            require_no_limits(k, optimizer.clip_norm, optimizer.nonfinite)

    def __dir__(self) -> list[str]:
        return without_near_misses(type(self), super().__dir__())

    @reprlib.recursive_repr()  # a schedule may lead back here
    def __repr__(self) -> str:
        try:
            told = {**self._limits_in_use(), "step_count": self.step_count}
            own = [f"{name}={text_of(value)}" for name, value in told.items()]
            text = ", ".join([*map(text_of, self._optimizers), *own])
        except Exception:  # a debugger asks at any time, also before the object is complete
            return super().__repr__()
        return f"{type(self).__name__}({text})"


_OF_RULES = ("lr", "weight_decay", "l1", "clip_value", "betas", "eps", "momentum")
_OF_OPTIMIZERS = ("param_groups", "add_param_group", "current", "ema_decay", "seed")
add_near_misses_of_each(Combined, [*_OF_RULES, *_OF_OPTIMIZERS])


def _require_optimizers(optimizers: tuple[object, ...]) -> None:
    if not optimizers:
        raise TypeError(
            "Combined must get at least one optimizer, got none; pass each optimizer as an argument"
        )
    first: dict[int, int] = {}
    for k, optimizer in enumerate(optimizers):
        if not isinstance(optimizer, Optimizer):
            inside = isinstance(optimizer, (list, tuple, Combined))
            raise TypeError(
                f"optimizers[{k}] must be an Optimizer of instep, got {kind(optimizer)}"
                + ("; pass each optimizer as an argument of its own" if inside else "")
                + (", as in *combined.optimizers" if isinstance(optimizer, Combined) else "")
            )
        if (other := first.setdefault(id(optimizer), k)) != k:
            raise ValueError(
                f"optimizers[{k}] must be another optimizer, got the one that is optimizers[{other}]"
            )
        require_no_limits(k, optimizer.clip_norm, optimizer.nonfinite)
