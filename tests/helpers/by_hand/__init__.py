"""Every formula once more, on single Python floats, for the tests of the reference; one file a family.

A Python float is an IEEE double, and one operation on floats rounded to float32 afterwards is the
float32 operation (53 >= 2 * 24 + 2 bits; the values here stay clear of subnormals).
"""

from __future__ import annotations

import importlib
import pkgutil

from by_hand.single import ByHand, Single


def _found() -> dict[str, ByHand]:
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    tables = (getattr(importlib.import_module(f"by_hand.{m}"), "BY_HAND", {}) for m in modules)
    return {name: rule for table in tables for name, rule in table.items()}


BY_HAND = _found()

__all__ = ["BY_HAND", "ByHand", "Single"]
