"""Signatures and docstrings for ``help`` and `inspect.signature`, complete for every rule.

A rule's constructor names its own arguments and takes the shared ones as keywords
(``**shared: Unpack[Shared]``, which type checkers and editors read); its docstring describes them
by "As for `Optimizer`.", or "As for `Adam`." if another rule of instep has the same argument. So
an argument is described once. At run time, both are shown in full.
"""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["complete", "complete_signature", "completed", "keywords", "without_quotes"]

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

# Names, on one or more lines, perhaps their type, and the indented lines that describe them. Compiled when they are
# used, since complete docstrings are made only when they are read: this makes importing instep faster.
_ENTRY = r"^(?P<names>\w+(?:,\s\w+)*)(?: : .*)?\n(?P<text>(?: {4}.*\n?)+)"
_REFERENCE = r"\s*As for `(\w+)`\.\s*"
_of_instep: dict[str, type[Any]] = {}  # its rules by name, to which docstrings refer


def complete(rule: type[Any]) -> None:
    """Complete a class's docstring and its constructor's signature from its bases'."""
    if rule.__module__.startswith("instep."):
        _of_instep[rule.__name__] = rule
    if rule.__doc__ is not None:  # as it is under python -OO
        whole: Any = _Docstring(rule, rule.__doc__)
        rule.__doc__ = whole
    if "__init__" in vars(rule):
        without_quotes(rule)
        base: Any = next(base for base in rule.__mro__[1:] if "__init__" in vars(base))
        complete_signature(vars(rule)["__init__"], base.__init__)


def complete_signature(function: Callable[..., None], called: Callable[..., None]) -> None:
    """Replace ``**`` by the keywords, with defaults, of the function that gets them."""
    signature = inspect.signature(function)
    own = {n: p for n, p in signature.parameters.items() if p.kind is not p.VAR_KEYWORD}
    if len(own) == len(signature.parameters):
        return
    others = inspect.signature(called).parameters
    inherited = [p for n, p in others.items() if p.kind is p.KEYWORD_ONLY and n not in own]
    whole: Any = function
    whole.__signature__ = signature.replace(parameters=[*own.values(), *inherited])


def without_quotes(what: Decorated) -> Decorated:
    """Decorate a function, or a class for its functions: signatures then show types as the source does.

    Annotations that are not evaluated are strings; up to Python 3.13, signatures show their quotes.
    """
    for found in vars(what).values() if isinstance(what, type) else [what]:
        function = found.__func__ if isinstance(found, staticmethod) else found
        if inspect.isfunction(function):
            types = function.__annotations__
            for name, annotation in types.items():
                if isinstance(annotation, str):
                    types[name] = _Source(annotation)
    return what


def keywords(rule: type[Any]) -> tuple[str, ...]:
    """Return the names of the constructor's arguments besides the parameters."""
    return tuple(name for name in inspect.signature(rule).parameters if name != "params")


def completed(docstring: str, others: dict[str, type[Any]]) -> str:
    """Replace each "As for `Other`." by the other class's description of the arguments."""

    def whole(entry: re.Match[str]) -> str:
        reference = re.fullmatch(_REFERENCE, entry["text"])
        if reference is None:
            return entry[0]
        known = _entries(others[reference[1]].__doc__ or "")
        return "".join(dict.fromkeys(known[name] for name in re.split(r",\s", entry["names"])))

    return re.sub(_ENTRY, whole, inspect.cleandoc(docstring), flags=re.M)


@functools.cache  # `Optimizer`'s is asked for by every rule
def _entries(docstring: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in re.finditer(_ENTRY, inspect.cleandoc(docstring), re.M):
        for name in re.split(r",\s", entry["names"]):
            found.setdefault(name, entry[0].rstrip() + "\n")
    return found


class _Docstring:
    """A rule's ``__doc__``, completed when it is first read."""

    __slots__ = ("_rule", "_whole", "_written")

    def __init__(self, rule: type[Any], written: str) -> None:
        self._rule = rule
        self._written = written
        self._whole: str | None = None

    def __get__(self, instance: object, owner: type[Any] | None = None) -> str:
        if self._whole is None:
            bases = {base.__name__: base for base in self._rule.__mro__[1:]}
            self._whole = completed(self._written, {**_of_instep, **bases})
        return self._whole


class _Source(str):
    """An annotation that shows itself as it was written."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)
