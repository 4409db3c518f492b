"""Every test finds instep as imported: best level, default threads, ordinary thresholds."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import instep
from instep import _core


@pytest.fixture(autouse=True)
def _as_imported() -> Iterator[None]:
    level, threads, least_work = _core.level(), _core.wanted_threads(), _core.least_work()
    yield
    instep.set_isa(level)
    _core.set_threads(threads)
    _core.set_least_work(least_work)


@pytest.fixture
def eager_threads() -> None:
    """Steps go parallel from one chunk a thread on, though that would not pay."""
    _core.set_least_work(1)
