"""The signed square-root code: 8 bits an element, and a float32 unit for each block of 64 elements."""

from __future__ import annotations

from typing import Any

import numpy as np

from instep import _core
from instep._support import documentation
from instep._support.checks import flag
from instep._support.wording import kind, shown
from instep.optimizers.stored_arrays import require_unmasked

__all__ = ["BLOCK", "decode", "encode"]

BLOCK = 64  # elements with one unit
_LARGEST = {True: np.float32(127), False: np.float32(255)}  # code, of signed numbers and of others
_INFINITY = 0x7F800000  # the bits of float32's

Array = np.ndarray[Any, Any]


@documentation.without_quotes
def decode(codes: Array, units: Array) -> Array:
    """Return the numbers of codes of 8 bits.

    With the code q of an element and the unit e of its block of 64 elements, in float32::

        t = q * e
        x = t * |t|         codes of int8, for numbers of both signs
        x = t * t           codes of uint8, for numbers that are never negative

    Parameters
    ----------
    codes : array
        Of int8 or uint8, of any shape, such as ``optimizer.state["w"]["exp_avg"]``.
    units : array
        Of float32, one for each 64 codes in C order, such as
        ``optimizer.state["w"]["exp_avg_unit"]``.

    Returns
    -------
    array
        Of float32, of the codes' shape. Where a unit is NaN, all numbers of its block are.

    Raises
    ------
    TypeError, ValueError
        If an array has another dtype, or `units` another shape.

    Examples
    --------
    >>> import numpy as np, instep
    >>> codes, units = np.array([127, 0, -64], np.int8), np.array([2 / 127], np.float32)
    >>> instep.storage.decode(codes, units).round(3)
    array([ 4.   ,  0.   , -1.016], dtype=float32)
    """
    _require_array("codes", codes, (np.int8, np.uint8))
    _require_array("units", units, (np.float32,))
    expected = (block_count(codes.size),)
    if units.shape != expected:
        raise ValueError(
            f"units must have shape {expected}, one for each {BLOCK} of {codes.size} codes, got "
            f"{units.shape}"
        )
    found: Array = _core.in_default_environment(_decoded, np.asarray(codes), np.asarray(units))
    return found


@np.errstate(all="ignore")
def _decoded(codes: Array, units: Array) -> Array:
    flat = codes.reshape(-1)
    t = flat.astype(np.float32)
    t *= np.repeat(units, BLOCK)[: flat.size]
    t *= np.abs(t) if codes.dtype == np.int8 else t
    found: Array = t.reshape(codes.shape)
    return found


@documentation.without_quotes
def encode(values: Array, *, signed: bool) -> tuple[Array, Array]:
    """Return the codes of 8 bits that are nearest to numbers, and their units.

    For each block of 64 elements in C order, with Q = 127 for signed numbers and 255 for others, in
    float32::

        R = sqrt(largest |x| of the block)
        e = R / Q                                       the unit
        y = sqrt(|x|) * (Q / R)
        q = min(trunc(min(y, Q) + 0.5), Q)              0 where R = 0

    A signed code has the sign of x. The code of a number greater than 0 is at least 1 if `signed`
    is False. Zero is stored exactly. If a block has an infinity or NaN, its unit is NaN and its
    codes are 0. `decode` is the inverse. A step of an optimizer rounds at random instead, unless
    it was made with ``rounding="nearest"``.

    Parameters
    ----------
    values : array
        Of float32, or of another floating-point dtype, which is rounded to float32 first.
    signed : bool
        Whether the codes are for numbers of both signs. Which states are signed is in
        ``instep.Steps.rules()[rule]["kinds"]``.

    Returns
    -------
    codes : array
        Of int8 if `signed`, otherwise of uint8; of the shape of `values`, C-contiguous.
    units : array
        Of float32.

    Raises
    ------
    TypeError, ValueError
        If `values` is no array of floating-point numbers, or has a negative number without
        `signed`.

    Examples
    --------
    >>> import numpy as np, instep
    >>> codes, units = instep.storage.encode(np.array([4.0, 0.0, -1.0], np.float32), signed=True)
    >>> codes
    array([127,   0, -64], dtype=int8)
    >>> instep.storage.decode(codes, units).round(3)
    array([ 4.   ,  0.   , -1.016], dtype=float32)
    """
    signed = flag("signed", signed)
    if not isinstance(values, np.ndarray):
        raise TypeError(f"values must be a NumPy array, got {kind(values)}")
    require_unmasked("values", values)
    if values.dtype.kind != "f" and values.dtype.name != "bfloat16":
        raise TypeError(f"values must have a floating-point dtype, got {values.dtype}")
    if not signed and (values < 0).any():
        raise ValueError(
            f"values must be at least 0 without signed=True, got {shown(float(np.nanmin(values)))}"
        )
    return _core.in_default_environment(_encoded, np.asarray(values), signed)


@np.errstate(all="ignore")
def _encoded(values: Array, signed: bool) -> tuple[Array, Array]:
    Q, count = _LARGEST[signed], block_count(values.size)
    blocks = np.zeros((count, BLOCK), np.float32)
    blocks.reshape(-1)[: values.size] = values.reshape(-1)
    M = (blocks.view(np.uint32) & np.uint32(0x7FFFFFFF)).max(axis=1)
    R = np.sqrt(M.view(np.float32))
    units = R / Q
    k = np.where(R > 0, Q / R, np.float32(0))
    y = np.minimum(np.sqrt(np.abs(blocks)) * k[:, None], Q)
    q = np.minimum(np.trunc(y + np.float32(0.5)), Q)
    if not signed:
        q = np.where(blocks > 0, np.maximum(q, np.float32(1)), q)
    q, unknown = np.copysign(q, blocks), M >= _INFINITY
    q[unknown], units[unknown] = 0, np.nan
    codes = q.astype(np.int8 if signed else np.uint8).reshape(-1)[: values.size]
    return codes.copy().reshape(values.shape), units


def block_count(size: int) -> int:
    """Return how many units codes of this size have."""
    return -(-size // BLOCK)


def _require_array(who: str, found: object, dtypes: tuple[type[np.generic], ...]) -> None:
    if not isinstance(found, np.ndarray):
        raise TypeError(f"{who} must be a NumPy array, got {kind(found)}")
    require_unmasked(who, found)
    if found.dtype.type not in dtypes:
        expected = " or ".join(np.dtype(dtype).name for dtype in dtypes)
        raise TypeError(f"{who} must have dtype {expected}, got {found.dtype}")
