"""Copies that a long step writes past the caches: every byte of them, and none beside them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

import instep
from instep import _core

# From a quarter of a gibibyte on (cpp/runtime/step.cpp); plain SGD with a copy moves four numbers an element.
LONG = (1 << 28) // 4
SIZES = (0, 1, 7, 8, 31, 32, 33, 500, 511, 512, 513, 1024, 3 * 512 + 5, 16384, 16384 + 40)
GUARD = 64  # elements around each copy


@pytest.mark.parametrize("isa", _core.usable_levels())
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("copied", ["float16", "bfloat16"])
def test_copies_of_a_long_step(isa: str, dtype: str, copied: str) -> None:
    instep.set_isa(isa)
    kind = np.dtype(ml_dtypes.bfloat16 if copied == "bfloat16" else copied)
    rng = np.random.default_rng(0)
    sizes = [*SIZES, LONG // np.dtype(dtype).itemsize + 77]
    numbers = rng.standard_normal(1 << 16).astype(dtype)
    params = [np.resize(numbers, size) for size in sizes]
    rooms = [np.full(size + 2 * GUARD, 7, kind) for size in sizes]
    # Each begins at a place of its own in its cache line, as far as elements allow.
    copies = [
        room[GUARD - k % 32 : GUARD - k % 32 + size]
        for k, (room, size) in enumerate(zip(rooms, sizes, strict=True))
    ]
    copies[5] = np.full(2 * sizes[5], 7, kind)[::2]  # and one has gaps
    optimizer = instep.SGD(params, lr=0.5, copy_to=copies)
    grads = [np.roll(param, 1) for param in params]
    wanted = [
        param - np.dtype(dtype).type(0.5) * grad for param, grad in zip(params, grads, strict=True)
    ]
    optimizer.step(grads)
    for k, (param, copy, room) in enumerate(zip(params, copies, rooms, strict=True)):
        assert param.tobytes() == wanted[k].tobytes(), f"parameter {k}"
        assert param.astype(kind).tobytes() == copy.tobytes(), f"copy {k}"
        begin = GUARD - k % 32
        if k == 5:
            assert (np.asarray(copy.base)[1::2] == 7).all()
            continue
        assert (room[:begin] == 7).all()
        assert (room[begin + copy.size :] == 7).all()


@pytest.mark.parametrize("isa", _core.usable_levels())
def test_blocks_of_codes_stay_whole_in_a_long_step(isa: str) -> None:
    """Where there are codes, no first block of another length brings the copies to whole cache lines."""
    instep.set_isa(isa)
    size = (1 << 28) // 16
    numbers = np.resize(np.random.default_rng(0).standard_normal(1 << 16).astype("f4"), size)
    room = np.zeros(size + GUARD, "f2")
    begin = (-room.ctypes.data % 64) // 2 + 3
    formats = {"exp_avg": "8bit", "exp_avg_sq": None}
    with_copy, without = (
        instep.Adam({"w": numbers.copy()}, state_dtype=formats, copy_to=copy)
        for copy in ({"w": room[begin : begin + size]}, None)
    )
    for optimizer in (with_copy, without):
        optimizer.step({"w": numbers})
    assert with_copy.params["w"].tobytes() == without.params["w"].tobytes()
    for name, array in without.state["w"].items():
        assert with_copy.state["w"][name].tobytes() == array.tobytes(), name
