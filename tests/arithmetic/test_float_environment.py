"""The caller's floating-point environment changes no bit and is as it was afterwards."""

from __future__ import annotations

import ctypes
import platform

import numpy as np
import pytest
from cases import numbers
from float_flags import FTZ_AND_DAZ, ROUND_UP, Environment, flags, libm, mxcsr
from reference import Reference, assert_follows

import instep

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="sets MXCSR through glibc",
)


@pytest.mark.parametrize("bits", [FTZ_AND_DAZ, ROUND_UP, FTZ_AND_DAZ | ROUND_UP])
@pytest.mark.parametrize("threads", [1, 3])
def test_bits_and_restoration(bits: int, threads: int, eager_threads: None) -> None:
    instep.set_num_threads(threads)
    rng = np.random.default_rng(14)
    start = {
        name: numbers(rng, 60_000, dtype) for name, dtype in (("a", "f4"), ("b", "f8"), ("c", "f2"))
    }
    start["a"][::3] = 1e-41  # subnormal
    start["b"][::3] = 1e-310
    params = {name: p.copy() for name, p in start.items()}
    grads = [{name: numbers(rng, p.size, p.dtype) for name, p in start.items()} for _ in range(3)]
    for grad in grads:
        grad["a"][::2] = 1e-42
        grad["b"][::2] = 1e-312
    settings = {"clip_norm": 1.0, "betas": (0.7, 0.93), "ema_decay": 0.1}
    reference = Reference("Adam", start, **settings)
    for grad in grads:
        reference.step(grad)
    optimizer = instep.Adam(params, **settings)
    for grad in grads:
        with flags(bits):
            before = mxcsr()
            optimizer.step(grad)
            after = mxcsr()
        assert after == before
        assert before & bits == bits
    assert_follows(optimizer, params, reference)


@pytest.mark.parametrize("size", [100, 2_000_000])
def test_no_flag_is_raised(size: int) -> None:
    """Also where the step is timed, to find out how many threads pay: that is arithmetic too."""
    instep.set_num_threads(3)
    p, g = np.ones(size, "f4"), np.full(size, 0.1, "f4")
    optimizer = instep.Adam(p, clip_norm=1.0)
    optimizer.step(g)
    environment, saved = Environment(), Environment()
    libm.fegetenv(ctypes.byref(saved))
    libm.fegetenv(ctypes.byref(environment))
    environment.mxcsr &= ~0x3F
    raised = 0
    for _ in range(3):
        libm.fesetenv(ctypes.byref(environment))
        optimizer._plan.step(g, optimizer)
        raised |= mxcsr() & 0x3F
    libm.fesetenv(ctypes.byref(saved))
    assert raised == 0
