"""The packages that the demo needs besides NumPy: imported when it runs, never with the library."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from instep._support.wording import missing

__all__ = ["MissingExtraError", "load_extra"]

_PACKAGES = {"matplotlib": "matplotlib", "sklearn": "scikit-learn", "tqdm": "tqdm"}


class MissingExtraError(ImportError):
    """A package of the extra ``instep[demo]`` is missing."""


def load_extra(module: str) -> Any:
    """Return a module of the packages that the extra ``instep[demo]`` brings."""
    package = _PACKAGES[module.partition(".")[0]]
    try:
        return import_module(module)
    except ModuleNotFoundError:
        raise MissingExtraError(missing("the demo", package, "demo")) from None
