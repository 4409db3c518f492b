"""Words of errors: one line, however large the model."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable

__all__ = ["described", "difference", "kind", "listed", "missing", "shown", "text_of"]

_LONGEST = 80  # a value's own text
_MOST = 3  # names before "and N more"
_SHORT = reprlib.Repr()
_SHORT.maxstring = 60


def kind(value: object) -> str:
    """Name the kind of a value: "a list", "an ndarray", "the class CosineDecay"."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__name__}"
    name = type(value).__name__
    return f"{'an' if name[0].lower() in 'aeio' or name == 'ndarray' else 'a'} {name}"


def described(container: object) -> str:
    """Name the kind of a container, with the length of a list or tuple: "a list of 3"."""
    size = f" of {len(container)}" if isinstance(container, (list, tuple)) else ""
    return kind(container) + size


def shown(value: object) -> str:
    """Show a value; name its kind if its text is long, has several lines or can't be made."""
    text = text_of(value)
    return text if len(text) <= _LONGEST and text.isprintable() else kind(value)


def text_of(value: object) -> str:
    """Return a value's own text, of any length; name its kind if it has none."""
    try:
        return repr(value)
    except Exception:  # of a class of the caller's, or RecursionError for lists in lists in lists
        return kind(value)


def listed(names: Collection[object]) -> str:
    """List a few names, and say how many more there are."""
    names = list(names)
    few = ", ".join(_SHORT.repr(name) for name in names[:_MOST])
    more = len(names) - _MOST
    return few + (f" and {more} more" if more > 0 else "")


def missing(who: str, package: str, extra: str) -> str:
    """Say that a package is missing, and how to install it with instep's extra."""
    return f"{who} needs {package}, which is missing; pip install 'instep[{extra}]'"


def difference(found: Iterable[object], expected: Iterable[object]) -> str:
    """Say what is missing and what is unknown among names, or that their order differs."""
    found, expected = list(found), list(expected)
    lacking, unknown = _without(expected, found), _without(found, expected)
    parts = [
        f"{what}: {listed(names)}"
        for what, names in (("missing", lacking), ("unknown", unknown))
        if names
    ]
    return "; ".join(parts) or _other_order(found, expected)


def _other_order(found: list[object], expected: list[object]) -> str:
    for place, (mine, other) in enumerate(zip(found, expected, strict=False)):
        if mine != other:
            return f"the order must be the same: number {place} must be {listed([other])}, got {listed([mine])}"
    return f"there must be {len(expected)}, got {len(found)}, some of them twice"


def _without(names: list[object], others: list[object]) -> list[object]:
    there = set(others)
    return [name for name in names if name not in there]
