"""Strict JSON: no key twice, no NaN, no infinity, and the same numbers in any rounding mode."""

from __future__ import annotations

import json
import math
from functools import partial
from typing import Any

from instep import _core
from instep._support.wording import kind
from instep.checkpoint.layout import CheckpointError

__all__ = ["as_text", "decode", "one_line"]

_LONGEST_LINE = 400


def decode(text: str, who: str) -> dict[str, Any]:
    """Return the object that a text of strict JSON holds; any other text is a CheckpointError."""
    try:
        found = _parse(text)
    except RecursionError:
        raise CheckpointError(f"{who} must be nested less deeply, got too many levels") from None
    except ValueError as error:
        raise CheckpointError(f"{who} must be JSON, got another text: {error}") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{who} must be a JSON object, got {kind(found)}")
    return found


def _parse(text: str) -> Any:
    """Return the value of strict JSON: no key twice, no NaN, no infinity. Raises ValueError.

    Python reads and writes decimals in the rounding mode of the program. Here they are read in the
    default mode, so the numbers don't depend on the program's mode.
    """
    return _core.in_default_environment(
        partial(
            json.loads,
            text,
            object_pairs_hook=_unique,
            parse_constant=_finite,
            parse_float=_finite,
        )
    )


def as_text(value: Any, **options: Any) -> str:
    """Return strict JSON for a value. Raises ValueError, TypeError or RecursionError."""
    return _core.in_default_environment(partial(json.dumps, value, allow_nan=False, **options))


def one_line(text: str) -> str:
    """Return text without line breaks and control characters, shortened if it is long."""
    line = "".join(c if c.isprintable() else " " for c in " ".join(text.split()))
    return line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..."


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("each key must be there once, got one twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"a number must be finite, got {text}")
    return value
