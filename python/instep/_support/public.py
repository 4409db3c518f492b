"""Public paths: pickles and tracebacks name these, so that everything else may move."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["publish"]


def publish(path: str, names: Iterable[str], namespace: Mapping[str, Any]) -> None:
    """Have the classes among these names say that they are of the module at a public path."""
    for name in names:
        if isinstance(namespace[name], type):
            namespace[name].__module__ = path
