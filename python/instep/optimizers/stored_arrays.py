"""The arrays of a stored state: checked against an optimizer's, and completed for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from instep import _core
from instep._support.checks import mapping, require_keys
from instep._support.wording import kind, listed
from instep.optimizers.stored_formats import EIGHT_BITS, REMAINDER, UNIT, kinds_of

if TYPE_CHECKING:
    from instep.optimizers.bound import Bound
    from instep.optimizers.containers import Array

__all__ = [
    "check",
    "check_like",
    "completed",
    "format_of",
    "is_wide",
    "require_like",
    "require_unmasked",
    "with_roots",
]

_MASTER_BITS = {np.dtype(np.int8): 24, np.dtype(np.int16): 32}  # by the dtype of the remainder


def check(optimizer: Bound, state: Mapping[str, Any]) -> None:
    """Raise TypeError or ValueError unless the arrays of a state fit these parameters."""
    check_like(optimizer, state, optimizer.state, optimizer.averages)


def check_like(
    optimizer: Bound,
    state: Mapping[str, Any],
    states: Mapping[str, Mapping[str, Array]],
    averages: Mapping[str, Array],
) -> None:
    """Raise TypeError or ValueError unless the arrays of a state are like these, and its sums fit the parameters."""
    names = tuple(optimizer.params)
    require_keys("state", state["state"], names)
    require_keys("averages", state["averages"], tuple(averages))
    for name in names:
        _check_states(optimizer, name, states[name], state["state"][name])
    for name, array in averages.items():
        require_like(f"the average of {name!r}", state["averages"][name], array)
    for name, array in mapping("accumulated", state["accumulated"]).items():
        if name not in optimizer.params:
            raise ValueError(
                f"a key of accumulated must be the name of a parameter, got {listed([name])}"
            )
        param = np.asarray(optimizer.params[name])
        wide = np.float64 if is_wide(param) else np.float32
        like = np.broadcast_to(np.zeros((), wide), param.shape)
        require_like(f"the accumulated gradient of {name!r}", array, like)


def _check_states(optimizer: Bound, name: str, mine: Mapping[str, Array], theirs: Any) -> None:
    theirs = mapping(f"state[{name!r}]", theirs)
    for key in kinds_of(optimizer._rule):
        if key in mine:
            _require_format(name, key, mine, theirs, np.asarray(optimizer.params[name]))
    if REMAINDER in theirs and REMAINDER not in mine:
        bits = _MASTER_BITS.get(getattr(theirs[REMAINDER], "dtype", np.dtype(np.int16)), 32)
        raise ValueError(
            f"the state of {name!r} must be of a parameter without a remainder, got one with it; make "
            f"the parameter bfloat16 and the optimizer with master_bits={bits}, or {_CONVERT}"
        )
    own = mine
    if REMAINDER in mine and REMAINDER not in theirs:  # it becomes 0
        own = {key: array for key, array in mine.items() if key != REMAINDER}
    require_keys(f"state[{name!r}]", theirs, tuple(own))
    for key, array in own.items():
        if key == REMAINDER:
            _require_remainder(name, theirs[key], array)
        require_like(f"state {key!r} of {name!r}", theirs[key], array)


# For files, too: such an optimizer can load the file, and convert() needs no file.
_CONVERT = (
    "convert the state_dict() of such an optimizer by instep.storage.convert(state_dict, optimizer)"
)


def _require_format(
    name: str, key: str, mine: Mapping[str, Array], theirs: Mapping[str, Any], param: Array
) -> None:
    """Raise ValueError for a state in a format that the parameter's could have, but hasn't."""
    expected, found = format_of(mine, key), format_of(theirs, key)
    wide = "float64" if is_wide(param) else "float32"
    possible = (EIGHT_BITS, "bfloat16", "float16", "float32", "float64")
    if found == expected or found not in possible:  # others are not like the optimizer's array
        return
    size = " and the same min_8bit_size" if EIGHT_BITS in (expected, found) else ""
    how = None if found == wide else found
    # Some formats are for parameters in the other arithmetic alone.
    refused = EIGHT_BITS if is_wide(param) else "float64"
    make = f"make the optimizer with state_dtype={how!r} for it{size}, or "
    raise ValueError(
        f"state {key!r} of {name!r} must be stored as {expected}, got {found}; "
        f"{'' if found == refused else make}{_CONVERT}"
    )


def _require_remainder(name: str, found: Any, like: Array) -> None:
    bits = _MASTER_BITS.get(getattr(found, "dtype", None))
    if bits is not None and found.dtype != like.dtype:
        raise ValueError(
            f"state {REMAINDER!r} of {name!r} must be {like.dtype}, of {_MASTER_BITS[like.dtype]} bits "
            f"with the parameter, got {found.dtype}; make the optimizer with master_bits={bits}, or "
            f"{_CONVERT}"
        )


def format_of(states: Mapping[str, Any], key: str) -> str | None:
    """Return in which format a parameter's state of this name is stored; None if it is no array."""
    array = states.get(key)
    if key + UNIT in states:
        return EIGHT_BITS
    return str(np.asarray(array).dtype) if isinstance(array, np.ndarray) else None


def completed(optimizer: Bound, state: Mapping[str, Any], name: str) -> Mapping[str, Array]:
    """Return the states of a parameter as the core takes them, of a state that has been checked."""
    mine, theirs = optimizer.state[name], with_roots(optimizer, state, name)
    if REMAINDER in mine and REMAINDER not in theirs:
        like = np.asarray(mine[REMAINDER])
        return {**theirs, REMAINDER: np.zeros(like.shape, like.dtype)}
    return theirs


def with_roots(optimizer: Bound, state: Mapping[str, Any], name: str) -> Mapping[str, Array]:
    """Return the states of a parameter, with the roots of second moments in float16.

    In the first version of stored states, such moments were stored themselves.
    """
    states: Mapping[str, Array] = state["state"][name]
    if state["schema"] != 1:
        return states
    wide = np.float64 if is_wide(optimizer.params[name]) else np.float32
    return {
        key: _core.in_default_environment(_root, array, wide)
        if array.dtype == np.float16 and kinds_of(optimizer._rule).get(key, {}).get("root")
        else array
        for key, array in states.items()
    }


def _root(array: Array, wide: type[np.floating[Any]]) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(np.sqrt(array, dtype=wide)).astype(np.float16)


def is_wide(parameter: Any) -> bool:
    """Tell whether a parameter's arithmetic is in float64."""
    return bool(np.asarray(parameter).dtype == np.float64)


def require_like(who: str, found: Any, like: Array) -> None:
    """Raise unless found is an array of the same shape and dtype, even if a subclass reports others."""
    if not isinstance(found, np.ndarray):
        raise TypeError(f"{who} must be a NumPy array, got {kind(found)}")
    require_unmasked(who, found)
    found, like = np.asarray(found), np.asarray(like)
    if (found.shape, found.dtype) != (like.shape, like.dtype):
        raise ValueError(
            f"{who} must have shape {like.shape} and dtype {like.dtype}, "
            f"got {found.shape} and {found.dtype}"
        )


def require_unmasked(who: str, found: Any) -> None:
    """Raise TypeError for a masked array, since its mask would be lost."""
    if type(found) is not np.ndarray and isinstance(found, np.ndarray) and hasattr(found, "mask"):
        raise TypeError(f"{who} must be a plain NumPy array, got {kind(found)}")
