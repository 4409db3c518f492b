"""Signatures and docstrings of the rules, made whole: what rules share is written once.

A rule's constructor names its own arguments and takes the shared ones as keywords
(``**shared: Unpack[Shared]``, which type checkers and editors read); its docstring says "As for
`Optimizer`." of them. Who asks at run time, by ``help`` or `inspect.signature`, gets both in full.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

__all__ = ["complete", "keywords"]

# A line with names, perhaps their type, and the indented lines that describe them.
_ENTRY = re.compile(r"^(?P<names>\w[\w, ]*?)(?: : .*)?\n(?P<text>(?: {4}.*\n?)+)", re.M)
_REFERENCE = re.compile(r"\s*As for `(\w+)`\.\s*")


def complete(rule: type[Any]) -> None:
    """Complete a class's docstring and its constructor's signature from its bases'."""
    if rule.__doc__ is not None:  # as it is under python -OO
        bases = {base.__name__: base.__doc__ or "" for base in rule.__mro__}
        rule.__doc__ = _complete_docstring(rule.__doc__, bases)
    if "__init__" in vars(rule):
        _complete_signature(rule, vars(rule)["__init__"])


def keywords(rule: type[Any]) -> tuple[str, ...]:
    """Return the names of what a rule's constructor takes besides the parameters."""
    return tuple(name for name in inspect.signature(rule).parameters if name != "params")


def _complete_docstring(docstring: str, bases: dict[str, str]) -> str:
    """Put what a base says of its arguments in place of each "As for `Base`."."""

    def whole(entry: re.Match[str]) -> str:
        reference = _REFERENCE.fullmatch(entry["text"])
        if reference is None:
            return entry[0]
        known = _entries(bases[reference[1]])
        return "".join(dict.fromkeys(known[name] for name in entry["names"].split(", ")))

    return _ENTRY.sub(whole, inspect.cleandoc(docstring))


def _entries(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in _ENTRY.finditer(inspect.cleandoc(docstring)):
        for name in entry["names"].split(", "):
            found.setdefault(name, entry[0])
    return found


def _complete_signature(rule: type[Any], init: Callable[..., None]) -> None:
    """Put the keywords of the next constructor, with their defaults, in place of ``**``."""
    signature = inspect.signature(init)
    own = {n: p for n, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}
    if len(own) == len(signature.parameters):
        return
    base: Any = next(base for base in rule.__mro__[1:] if "__init__" in vars(base))
    others = inspect.signature(base.__init__).parameters
    inherited = [p for n, p in others.items() if p.kind is p.KEYWORD_ONLY and n not in own]
    whole: Any = init
    whole.__signature__ = signature.replace(parameters=[*own.values(), *inherited])
