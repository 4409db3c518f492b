"""States from one stored format to another, to nearest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from instep import _core
from instep._support import documentation
from instep._support.checks import mapping, require_keys
from instep._support.wording import kind, shown
from instep.optimizers import Combined, Optimizer, combined_state, stored_state
from instep.optimizers.require import require_optimizers
from instep.optimizers.stored_arrays import (
    format_of,
    is_wide,
    require_like,
    require_unmasked,
    with_roots,
)
from instep.optimizers.stored_formats import REMAINDER, UNIT, kinds_of
from instep.storage.codes import block_count, decode, encode

__all__ = ["convert", "stored_as", "values_of"]

Array = np.ndarray[Any, Any]


@documentation.without_quotes
def convert(state_dict: Mapping[str, Any], optimizer: Optimizer | Combined) -> dict[str, Any]:
    """Return a state in the formats in which another optimizer stores its states.

    States are decoded, and rounded once to the new format, to nearest. States in the same format
    are taken over as they are. Remainders (``master_bits``) are rounded from 16 to 8 bits beside
    the same parameter, extended from 8 to 16, and left out for an optimizer that has none; where
    the state has none, loading makes them 0.

    Parameters
    ----------
    state_dict : dict
        What `Optimizer.state_dict` or `Combined.state_dict` returned, of this or an earlier
        version of instep.
    optimizer : Optimizer or Combined
        Of the same rules, for parameters of the same names and shapes; it is not changed.

    Returns
    -------
    dict
        For ``optimizer.load_state_dict``, which checks it. Arrays that need no conversion are those
        of the argument.

    Raises
    ------
    TypeError, ValueError
        If the state is of another rule, has no such arrays, or has numbers beyond the range of the
        new format.

    Examples
    --------
    >>> import numpy as np, instep
    >>> w = np.ones(5000, np.float32)
    >>> wide = instep.Adam({"w": w})
    >>> wide.step({"w": w.copy()})
    >>> coded = instep.Adam({"w": w.copy()}, state_dtype="8bit")
    >>> coded.load_state_dict(instep.storage.convert(wide.state_dict(), coded))
    >>> coded.step_count, coded.state["w"]["exp_avg"].dtype
    (1, dtype('int8'))
    """
    require_optimizers(optimizer, "convert(state_dict, optimizer)")
    if not isinstance(optimizer, Combined):
        stored_state.require_state(optimizer, state_dict)
        return _converted(optimizer, state_dict)
    combined_state.require_state(optimizer, state_dict)
    found = []
    for k, (one, state) in enumerate(
        zip(optimizer.optimizers, state_dict["optimizers"], strict=True)
    ):
        with combined_state.about(k):
            stored_state.require_state(one, state)
            found.append(_converted(one, state))
    return {**state_dict, "schema": stored_state.SCHEMA, "optimizers": found}


def _converted(optimizer: Optimizer, state: Mapping[str, Any]) -> dict[str, Any]:
    require_keys("state", state["state"], tuple(optimizer.params))
    states = {name: _of_parameter(optimizer, state, name) for name in optimizer.params}
    seed = state.get("seed", optimizer.seed)
    return {**state, "schema": stored_state.SCHEMA, "seed": seed, "state": states}


def _of_parameter(optimizer: Optimizer, state: Mapping[str, Any], name: str) -> dict[str, Any]:
    param = np.asarray(optimizer.params[name])
    mine, kinds = optimizer.state[name], kinds_of(optimizer._rule)
    given = mapping(f"state[{name!r}]", state["state"][name])
    for key, array in given.items():
        if not isinstance(key, str):
            raise TypeError(
                f"a key of state[{name!r}] must be the name of a state, got {shown(key)}"
            )
        who = f"state {key!r} of {name!r}"
        if not isinstance(array, np.ndarray):
            raise TypeError(f"{who} must be a NumPy array, got {kind(array)}")
        require_unmasked(who, array)
        if key in kinds:
            _require_numbers(name, key, given, kinds[key], param.shape)
    theirs = with_roots(optimizer, state, name)
    found: dict[str, Any] = {}
    for key, array in theirs.items():
        if key in mine and key in kinds and format_of(theirs, key) != format_of(mine, key):
            root = kinds[key]["root"]
            values = values_of(theirs, key, root=root)
            who = f"state {key!r} of {name!r}"
            found |= stored_as(who, values, mine, key, kinds[key], wide=is_wide(param))
        elif key == REMAINDER:
            if REMAINDER in mine:
                found[key] = _remainder(array, mine[key].dtype)
        elif not (key.endswith(UNIT) and key.removesuffix(UNIT) in kinds):
            found[key] = array
            if key + UNIT in theirs:
                found[key + UNIT] = theirs[key + UNIT]
    return found


def _require_numbers(
    name: str, key: str, given: Mapping[str, Any], of: Mapping[str, Any], shape: tuple[int, ...]
) -> None:
    """Raise unless a state has floating-point numbers, or codes of its sign and their units."""
    who, array, unit = f"state {key!r} of {name!r}", given[key], key + UNIT
    if array.shape != shape:
        raise ValueError(f"{who} must have shape {shape}, got {array.shape}")
    if unit in given:
        of_codes = np.zeros((), np.int8 if of["signed"] else np.uint8)
        require_like(who, array, np.broadcast_to(of_codes, shape))
        of_units = np.broadcast_to(np.zeros((), np.float32), (block_count(array.size),))
        require_like(f"state {unit!r} of {name!r}", given[unit], of_units)
    elif array.dtype.kind != "f" and array.dtype.name != "bfloat16":
        raise TypeError(
            f"{who} must have a floating-point dtype, or codes with their units in {unit!r}, got "
            f"{array.dtype} without them"
        )


def _remainder(found: Array, dtype: np.dtype[Any]) -> Array:
    """Return a remainder of 8 bits in 16, or one of 16 bits rounded to 8 beside the same parameter."""
    if found.dtype == np.int8 and dtype == np.int16:
        return np.asarray(found.astype(np.int16) * np.int16(256))
    if found.dtype == np.int16 and dtype == np.int8:
        return np.asarray(np.minimum(np.rint(found / 256.0), 127.0)).astype(np.int8)
    return found


def values_of(states: Mapping[str, Array], key: str, *, root: bool) -> Array:
    """Return the numbers of a stored state; those of codes and roots are float32, which holds them exactly.

    `root` says that the state is stored as its square root in float16.
    """
    array = np.asarray(states[key])
    if key + UNIT in states:
        return decode(array, states[key + UNIT])
    if root and array.dtype == np.float16:
        with np.errstate(all="ignore"):
            array = _core.in_default_environment(lambda: np.square(array, dtype=np.float32))
    return np.asarray(array)


def stored_as(
    who: str,
    values: Array,
    mine: Mapping[str, Array],
    key: str,
    kind: Mapping[str, Any] | None,
    *,
    wide: bool,
) -> dict[str, Array]:
    """Return the arrays that hold numbers in the format of an optimizer's own state, rounded to nearest.

    `kind` is the state's; None for a scalar state. Numbers beyond the format's range raise ValueError.
    """
    root = kind is not None and kind["root"] and mine[key].dtype == np.float16
    coded = kind if key + UNIT in mine else None
    if kind is not None and (root or coded) and not kind["signed"] and (values < 0).any():
        raise ValueError(f"{who} must have numbers of at least 0, got negative ones")
    dtype = np.dtype(np.float32) if coded else mine[key].dtype

    @np.errstate(all="ignore")
    def rounded() -> dict[str, Array]:
        exact = np.asarray(values)
        if root:
            exact = np.asarray(np.sqrt(exact, dtype=np.float64 if wide else np.float32))
        found = _nearest(exact, dtype)
        if (np.isfinite(exact) & ~np.isfinite(found)).any():
            raise ValueError(
                f"{who} must have numbers in the range of {dtype}, in which this optimizer keeps "
                "its states, got numbers beyond it; make the optimizer with a wider state_dtype"
            )
        if coded is None:
            return {key: found}
        codes, units = encode(found, signed=coded["signed"])
        return {key: codes, key + UNIT: units}

    return _core.in_default_environment(rounded)


def _nearest(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return numbers rounded once; NumPy rounds float64 twice on the way to bfloat16."""
    if dtype.name != "bfloat16" or values.dtype != np.float64:
        return values.astype(dtype)
    close = np.asarray(values.astype(np.float32))
    # Between two bfloat16 numbers, a float32 says on which side of the middle the number is.
    halfway = (close.view(np.uint32) & np.uint32(0xFFFF)) == 0x8000
    off = halfway & (close != values) & np.isfinite(close)
    close[off] = np.nextafter(
        close[off], np.where(values > close, np.inf, -np.inf)[off], dtype="f4"
    )
    return close.astype(dtype)
