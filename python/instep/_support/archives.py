"""States that were stored by ``np.save`` or ``np.savez``, which turn every value into an array."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

__all__ = ["refuse_archive"]


def refuse_archive(state: object, number: str) -> None:
    """Raise TypeError if a state, or the number of this name in it, is an array; say what to do instead."""
    if isinstance(state, np.ndarray) and state.shape == () and state.dtype == object:
        raise TypeError("the state must be a dict, got an array that holds one; pass array.item()")
    if isinstance(state, Mapping) and isinstance(state.get(number), np.ndarray):
        raise TypeError(
            f"{number} of the state must be a number, got an array, which np.savez makes of every value; "
            "store the state with pickle.dump or joblib.dump, or use instep.checkpoint"
        )
