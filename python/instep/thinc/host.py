"""What the face of thinc needs of the library."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from instep._support.hosts import host, part

__all__ = ["BaseOptimizer", "of_api", "to_numpy"]

_NAME, _TESTED = "instep.thinc", "8.3 and 9.1"
host(_NAME, "thinc", "thinc", "thinc")
_api = host(_NAME, "thinc.api", "thinc", "thinc")


def of_api(name: str) -> Any:
    """Return a name of ``thinc.api``."""
    return part(_NAME, _api, name, _TESTED)


BaseOptimizer: Any = of_api("Optimizer")
to_numpy: Callable[[Any], Any] = of_api("to_numpy")
