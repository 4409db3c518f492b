"""How many bytes an element of a parameter takes on the rank that owns it, and moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from instep import _core
from instep.mpi.shards import Parameter
from instep.optimizers.stored_formats import EIGHT_BITS, kinds_of

__all__ = ["weighed"]

Array = np.ndarray[Any, Any]


def weighed(
    rule: str,
    options: Sequence[str],
    array: Array,
    state_dtypes: Any,
    formats: Mapping[str, Any],
    *,
    averaged: bool,
) -> Parameter:
    """Return what matters of a parameter for its distribution; `formats` are the keywords of the core's plan."""
    wide = 8 if array.dtype == np.float64 else 4
    small = array.size < formats["min_8bit_size"]
    # The gradients' sum, the parameter and what comes back of it, the average, the remainder, the states.
    weight = wide + 2 * array.itemsize + (wide if averaged else 0)
    if array.dtype.name == "bfloat16":
        weight += {0: 0, 24: 1, 32: 2}[formats["master_bits"]]
    kinds = kinds_of(rule)
    for name in set(_core.states_of(rule, options)) & set(kinds):
        wanted = state_dtypes.get(name) if isinstance(state_dtypes, dict) else state_dtypes
        weight += _stored(wanted, kinds[name], wide, small=small)
    return Parameter(array.size, weight, _core.needs_whole(rule, options))


def _stored(wanted: Any, kind: Mapping[str, Any], wide: int, *, small: bool) -> int:
    """Return the bytes of an element of a state; its unit is less than one."""
    if wanted is None or kind["narrow"] == "iterate":
        return wide
    if wanted == EIGHT_BITS:
        return wide if small or not kind["eight_bits"] else 1
    itemsize: int = wanted.itemsize
    return itemsize
