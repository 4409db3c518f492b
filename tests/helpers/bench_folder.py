"""Makes the modules of bench/ importable; skips the importing tests if bench/ isn't there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
if not BENCH.is_dir():
    pytest.skip("bench/ is not here", allow_module_level=True)
sys.path.append(str(BENCH))
