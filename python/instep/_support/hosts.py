"""The library of a face: imported with the face alone, and looked over before anything relies on it."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

from instep._support.wording import missing

__all__ = ["host", "part"]


def host(face: str, module: str, package: str, extra: str) -> ModuleType:
    """Import the library that a face serves; ImportError says how to install it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # it is there, and lacks something itself
        raise ImportError(missing(face, package, extra)) from None


def part(face: str, module: ModuleType, path: str, tested: str) -> Any:
    """Return a name of the library that is not public; ImportError names the versions that have it."""
    found: Any = module
    for name in path.split("."):
        found = getattr(found, name, None)
    if found is None:
        version = getattr(module, "__version__", "an unknown version")
        raise ImportError(
            f"{face} needs {module.__name__}.{path}, which {module.__name__} {version} lacks; instep "
            f"was tested with {module.__name__} {tested}"
        )
    return found
