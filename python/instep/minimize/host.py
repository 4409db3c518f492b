"""SciPy, imported with this face."""

from __future__ import annotations

from typing import Any

from instep._support.hosts import host

__all__ = ["optimize"]

optimize: Any = host("instep.minimize", "scipy.optimize", "SciPy", "scipy")
