"""The flags in MXCSR on x86-64, read and set by glibc."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

FTZ_AND_DAZ = 0x8040
ROUND_UP = 0x4000


class Environment(ctypes.Structure):
    """glibc's fenv_t on x86-64: 28 bytes of x87, then MXCSR."""

    _fields_ = [("x87", ctypes.c_uint32 * 7), ("mxcsr", ctypes.c_uint32)]


libm = ctypes.CDLL("libm.so.6")


def mxcsr() -> int:
    environment = Environment()
    assert libm.fegetenv(ctypes.byref(environment)) == 0
    return environment.mxcsr


@contextmanager
def flags(bits: int) -> Iterator[None]:
    environment, saved = Environment(), Environment()
    libm.fegetenv(ctypes.byref(saved))
    libm.fegetenv(ctypes.byref(environment))
    environment.mxcsr |= bits
    libm.fesetenv(ctypes.byref(environment))
    try:
        yield
    finally:
        libm.fesetenv(ctypes.byref(saved))
