"""What states in files need in memory (docs/state-storage.md)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from stored import output_of

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="refused on Windows")


def test_memory_is_bounded(tmp_path: Path) -> None:
    """States of 480 MB, in buffers of 96 MB."""
    text = """
        import resource, sys, numpy as np, instep
        def peak():
            return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) // 1024
        size = 60_000_000
        weights, grad = np.ones(size, np.float32), np.ones(size, np.float32)
        before = peak()
        optimizer = instep.Adam(weights, state_storage=sys.argv[1])
        for _ in range(2):
            optimizer.step(grad)
        print(peak() - before)
    """
    if sys.platform != "linux":
        pytest.skip("reads /proc")
    said = output_of(text, tmp_path)
    assert 60 < int(said) < 130  # megabytes


@pytest.mark.skipif("sys.platform != 'linux'", reason="the limit counts other memory elsewhere")
def test_a_checkpoint_that_does_not_fit_in_memory(tmp_path: Path) -> None:
    text = """
        import resource, sys, numpy as np, instep
        from instep import checkpoint
        params = [np.ones(2_500_000, np.float32) for _ in range(8)]
        grads = [np.ones_like(p) for p in params]
        optimizer = instep.Adam(params, state_storage=sys.argv[1] + "/states")
        optimizer.step(grads)
        data = next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]
        resource.setrlimit(resource.RLIMIT_DATA, (int(data) * 1024 + 60_000_000,) * 2)
        checkpoint.save(sys.argv[1] + "/run", optimizer)
        before = [p.tobytes()[:999] for p in params]
        optimizer.step(grads)
        checkpoint.load(sys.argv[1] + "/run", optimizer)
        assert [p.tobytes()[:999] for p in params] == before
        try:
            optimizer.state_dict()
        except MemoryError:
            print(optimizer.step_count)
    """
    assert output_of(text, tmp_path) == "1\n"
