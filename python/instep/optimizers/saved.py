"""Saving and loading an optimizer, pickles and copies."""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep._support import documentation
from instep.optimizers import copying, stored_state
from instep.optimizers.kept import Kept

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Saved"]


@documentation.without_quotes
class Saved(Kept):
    """The part of an optimizer that stores its state, and takes it over again."""

    __slots__ = ()

    def state_dict(self) -> dict[str, Any]:
        """Return everything that a resumed run needs besides the parameters, as plain data.

        Returns
        -------
        dict
            ``schema`` (version of this layout), ``rule``, ``step_count``, ``skipped_steps``,
            ``seed``, ``clip_norm``, ``ema_decay``; ``param_groups``, each with its names under ``params`` and
            its hyperparameters (schedules as their ``to_dict()``; your own callables, also inside
            schedules, by name only; options that came with a later version only
            if they are on); ``steps`` (parameter -> its own count) and, as copies,
            ``state`` (parameter -> state -> array, as they are stored: codes, units, remainders),
            ``averages`` and ``accumulated`` (parameter -> array).
        """
        self._warn_of_replaced()
        with self._plan.reading():
            return stored_state.state_dict(self)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load a state that `state_dict` returned; with the same parameters, the run goes on to the bit.

        The optimizer must have the same rule, for parameters of the same names, shapes and dtypes.
        States must be stored in the same formats; `instep.storage.convert` converts a state. Where the
        state has no remainders (``master_bits``), they become 0.
        Hyperparameters and the seed are loaded, too. A callable that is not a schedule of instep can't be
        loaded: the optimizer must have it already, at the same place of the same schedule. If its
        name differs from the stored name, a UserWarning names both. If a `ReduceOnPlateau` was
        stored and the optimizer has one at the same place, this object stays and takes over the
        stored arguments and state: go on calling its `observe`. Otherwise a new object is made.
        Places that shared one object share one object again.

        Raises
        ------
        TypeError, ValueError
            If anything doesn't fit; nothing has changed then.
        RuntimeError
            Inside ``averaged()``.

        Examples
        --------
        >>> import numpy as np, instep
        >>> w = np.ones(3)
        >>> first = instep.Adam(w, lr=0.1)
        >>> first.step(w.copy())
        >>> second = instep.Adam(w.copy(), lr=0.5)
        >>> second.load_state_dict(first.state_dict())
        >>> second.step_count, second.lr
        (1, 0.1)
        """
        self._warn_of_replaced()
        with self._plan:
            stored_state.load_state_dict(self, state_dict)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle and copy with states and parameters; only ``copy.copy`` shares the parameters.

        Pickle reads the arrays themselves after this method. So arrays that are pickled together
        with the optimizer are again the optimizer's arrays. No other thread may step the optimizer
        meanwhile.
        """
        self._refuse_copies()
        with self._plan.reading():
            return copyreg.__newobj__, (type(self),), copying.taken_apart(self)  # type: ignore[attr-defined]

    def _refuse_copies(self) -> None:
        if self._state_storage is not None:
            raise TypeError(
                "an optimizer with state_storage can't be copied or pickled, as its states lie in "
                f"{self._state_storage}; save a checkpoint, and load it into another optimizer"
            )

    def __setstate__(self, parts: dict[str, Any]) -> None:
        copying.put_together(self, parts)

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Copy everything between two steps; arrays copied together with the optimizer are the copy's arrays."""
        self._refuse_copies()
        with self._plan.reading():
            twin = type(self).__new__(type(self))
            memo[id(self)] = twin  # first: a schedule may lead back to the optimizer
            parts = copying.taken_apart(self)
            arrays = {name: parts.pop(name) for name in copying.ARRAYS}  # the core copies these
            copying.put_together(twin, {**copy.deepcopy(parts, memo), **arrays})
            return twin
