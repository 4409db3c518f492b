"""What is a real number, among all that ``float`` takes for one."""

from __future__ import annotations

__all__ = ["is_real"]

# Kinds of NumPy's dtypes: bool, complex, text, bytes, times, objects.
_NO_REALS = frozenset("bcUSmMO")


def is_real(value: object) -> bool:
    """Tell whether a value is one real number: none of True, text, a time or an array of several."""
    return (
        not isinstance(value, (bool, str, bytes, complex))
        and hasattr(value, "__float__")
        and getattr(value, "ndim", 0) == 0
        and getattr(getattr(value, "dtype", None), "kind", "f") not in _NO_REALS
    )
