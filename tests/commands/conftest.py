"""What the tests of the demo share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def blas_on_one_thread() -> Iterator[None]:
    """What else runs on the machine then costs these tests little."""
    from threadpoolctl import threadpool_limits  # noqa: PLC0415 - of the demo alone

    with threadpool_limits(1, user_api="blas"):
        yield


@pytest.fixture
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo without --save leaves its picture there."""
    monkeypatch.chdir(tmp_path)
