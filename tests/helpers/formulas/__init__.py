"""The arithmetic of every rule in plain NumPy, one file a family; `reference` has all that surrounds a rule.

A rule is a function of p, g (both in T), the states s (in T), the hyperparameters h of this step, the
parameter's own step count t and T. It returns the new p and leaves the new states in s. Scalars are
computed in double, as Python floats, and rounded once by `T(...)`.

To add a rule, write its function, and a table `RULES` with its states and its defaults. Arguments
are not validated here: the library does this, and other tests check it.
"""

from __future__ import annotations

import importlib
import pkgutil

from formulas.rule import Rule


def _found() -> dict[str, Rule]:
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    tables = (getattr(importlib.import_module(f"formulas.{m}"), "RULES", {}) for m in modules)
    return {name: rule for table in tables for name, rule in table.items()}


RULES = _found()

__all__ = ["RULES", "Rule"]
