"""What an optimizer keeps for its parameters: its bytes, its remainders and the seed of its rounding."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from instep._support import documentation
from instep.optimizers.bound import Bound
from instep.optimizers.containers import Array
from instep.optimizers.stored_formats import REMAINDER

__all__ = ["Kept"]


@documentation.without_quotes
class Kept(Bound):
    """The part of an optimizer that tells about what is stored."""

    __slots__ = ()

    @property
    def seed(self) -> int:
        """The seed of the random numbers that round states and parameters; loading a state sets it."""
        return self._plan.seed

    def reset_remainders(self) -> None:
        """Set the remainders of ``master_bits`` to zero.

        Call it after you have changed bfloat16 parameters by hand. A remainder that is left is off
        by half a last place of the new number at most; beside an infinity it makes NaN. Without
        ``master_bits`` there are none, and nothing happens.

        Raises
        ------
        RuntimeError
            Inside ``averaged()``; in the middle of a call of this optimizer.

        Examples
        --------
        >>> import ml_dtypes, numpy as np, instep
        >>> w = np.ones(2, ml_dtypes.bfloat16)
        >>> optimizer = instep.SGD(w, lr=2**-12, master_bits=32)
        >>> optimizer.step(np.ones(2, np.float32))
        >>> w[...] = 3.0
        >>> optimizer.reset_remainders()
        >>> optimizer.state["0"]["remainder"]
        array([0, 0], dtype=int16)
        """
        self._plan.reset_remainders()

    def memory(self) -> dict[str, int]:
        """Return the bytes of the arrays that the optimizer steps and keeps, by kind.

        Returns
        -------
        dict
            ``parameters``, ``states`` (with the units of 8-bit states), ``remainders``,
            ``averages``, ``copies``, ``accumulated`` (the sums that wait for the next step) and
            ``total``. With ``state_storage``, states, remainders and averages are bytes in files.

        Examples
        --------
        >>> import numpy as np, instep
        >>> optimizer = instep.Adam(np.zeros(1000, np.float32))
        >>> optimizer.memory()["states"], optimizer.memory()["total"]
        (8000, 12000)
        """
        held, states = self._held, self.state.values()
        kinds: dict[str, Iterable[Any]] = {
            "parameters": self.params.values(),
            "states": (a for own in states for key, a in own.items() if key != REMAINDER),
            "remainders": (own[REMAINDER] for own in states if REMAINDER in own),
            "averages": self.averages.values(),
            "copies": (copy for group in held.copies for copy in group if copy is not None),
            "accumulated": self.accumulated.values(),
        }
        found = {kind: _bytes_of(arrays) for kind, arrays in kinds.items()}
        return {**found, "total": sum(found.values())}


def _bytes_of(arrays: Iterable[Array]) -> int:
    """Return the bytes of all elements. An array that several parameters share counts once."""
    plain = map(np.asarray, arrays)  # a subclass may report others
    return sum({a.__array_interface__["data"][0]: a.nbytes for a in plain if a.nbytes}.values())
