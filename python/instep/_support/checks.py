"""Checks that every part of the package needs; each names what it checks in one line."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

from instep._support.wording import difference, kind, shown

__all__ = ["check_flag", "flag", "mapping", "require_keys", "word"]

Word = TypeVar("Word", bound=str)


def flag(who: str, value: object) -> bool:
    """Return True or False; raise TypeError for any other value."""
    if not isinstance(value, bool):
        raise TypeError(f"{who} must be True or False, got {shown(value)}")
    return value


def check_flag(who: str, *, on: bool, refused: str) -> None:
    """Raise ValueError if a flag is on that a rule refuses for this reason; empty: it takes the flag."""
    if on and refused:
        raise ValueError(f"{who} must be False, got True, since {refused}")


def word(who: str, value: object, words: Sequence[Word]) -> Word:
    """Return one of the words, as a plain str; raise ValueError for any other value."""
    if not isinstance(value, str) or value not in words:
        raise ValueError(f"{who} must be one of {', '.join(words)}, got {shown(value)}")
    return words[words.index(value)]


def mapping(who: str, value: object) -> Mapping[Any, Any]:
    """Return a dict, or what is read like one; raise TypeError for any other value."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{who} must be a dict, got {kind(value)}")
    return value


def require_keys(who: str, found: Any, expected: Collection[str], called: str = "keys") -> None:
    """Raise TypeError unless this is a dict, ValueError unless it has these keys and no others."""
    if set(mapping(who, found)) != set(expected):
        raise ValueError(f"{who} must have the expected {called}; {difference(found, expected)}")
