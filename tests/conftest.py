"""Every test finds instep as imported: best level, default threads, ordinary thresholds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoint_files import small
from hypothesis import HealthCheck, Phase, settings
from snapshots import bits

import instep
from instep import _core, checkpoint

# How much hypothesis draws, for every property there is. No deadlines: machines are shared. The fixture
# below holds for all the examples of a test together, and is meant to.
_ALWAYS = settings(
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
    report_multiple_bugs=False,
    print_blob=True,
)
settings.register_profile(
    "ci", _ALWAYS, max_examples=50, stateful_step_count=15, derandomize=True, database=None
)
settings.register_profile("fuzz", _ALWAYS, max_examples=300, stateful_step_count=30)
settings.load_profile("ci")


def pytest_collection_finish() -> None:
    """Leave out of every later garbage collection what stays to the end: a million objects of modules and tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def _as_imported() -> Iterator[None]:
    level, threads, least_work = _core.level(), _core.wanted_threads(), _core.testing.least_work()
    window = _core.testing.window_bytes()
    yield
    _core.testing.set_window_bytes(window)
    instep.set_isa(level)
    _core.set_threads(threads)
    _core.testing.set_least_work(least_work)


@pytest.fixture
def eager_threads() -> None:
    """Steps go parallel from one chunk a thread on, though that would not pay."""
    _core.testing.set_least_work(1)


@pytest.fixture
def torch_in_double() -> Iterator[None]:
    """PyTorch keeps the states that are one number in its default dtype, and instep in float64."""
    torch = pytest.importorskip(
        "torch", reason="PyTorch is not installed: pip install torch==2.13.0"
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


@pytest.fixture
def jax_in_double() -> Iterator[None]:
    """JAX computes in float32 unless it is told otherwise."""
    jax = pytest.importorskip("jax", reason="jax is not installed: `nox -s peers` has it")
    before = jax.config.jax_enable_x64
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, Any, instep.LossScaler]:
    """A small checkpoint, and an optimizer and a scaler that it fits, in another state."""
    optimizer, grads = small()
    scaler = instep.LossScaler(scale=8.0)
    assert scaler.step(optimizer, grads)
    optimizer.accumulate(grads)
    path = tmp_path / "run.safetensors"
    checkpoint.save(path, optimizer, extra={"epoch": 3, "name": "é\n"}, scaler=scaler)
    other, grads = small()
    for _ in range(2):
        other.step(grads)
    assert bits(other) != bits(optimizer)
    return path, other, instep.LossScaler()
