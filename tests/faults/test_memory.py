"""Arrays that aren't as they should be, vanish, are mapped from files, lead back to their optimizer: docs/faults.md."""

from __future__ import annotations

import copy
import gc
import os
import threading
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, OPTIMIZERS, labels, numbers
from interpreters import output
from reference import RULES, Reference, assert_follows, assert_same_bits
from snapshots import snapshot

import instep
from instep import _core

# ---- arrays that a step can't take --------------------------------------------------------------------


def misaligned(dtype: Any, off: int) -> np.ndarray:
    dtype = np.dtype(dtype)
    return np.zeros(8 * dtype.itemsize + off, np.uint8)[off : off + 4 * dtype.itemsize].view(dtype)


@pytest.mark.parametrize("role", ["parameter", "gradient", "copy"])
@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
def test_misaligned_and_byte_swapped(dtype: np.dtype[Any], role: str) -> None:
    """Every format in every role: refused by name, nothing changed."""
    bad = [misaligned(dtype, off) for off in (1, dtype.itemsize // 2)]
    if dtype != BFLOAT16:  # which has no other byte order
        bad.append(np.zeros(4, dtype.newbyteorder()))
    for array in bad:
        w = np.ones(4, "f8" if role == "copy" and dtype.itemsize < 8 else dtype)
        what = "misaligned" if array.dtype.isnative else "must be in the machine's byte order"
        before = array.tobytes(), w.tobytes()
        use = {
            "parameter": lambda a: instep.SGD([a, np.ones(3)]),
            "copy": lambda a, w=w: instep.SGD(w, copy_to=a),
            "gradient": lambda a, w=w: instep.SGD(w).step(a),
        }[role]
        with pytest.raises((ValueError, TypeError), match=f"'0'.* {what}"):
            use(array)
        assert (array.tobytes(), w.tobytes()) == before


BASE = np.zeros(24, "f4")
ONE_SHARED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "the last and the first": (BASE[:10], BASE[9:]),
    "the first and the last": (BASE[9:], BASE[:10]),
    "a corner": (BASE.reshape(4, 6)[:2, :3], BASE.reshape(4, 6)[1:, 2:]),
    "of two combs": (BASE[::2], BASE[3::9]),
    "reversed": (BASE[9::-1], BASE[9:]),
    "another dtype's": (BASE[:10], BASE[9:11].view("f2")),
    "the same array": (BASE, BASE),
    "the same memory": (BASE, BASE[:]),
}


@pytest.mark.parametrize("pair", ONE_SHARED.values(), ids=ONE_SHARED)
def test_one_shared_element(pair: tuple[np.ndarray, np.ndarray]) -> None:
    """Of two parameters, of a parameter and a gradient, of a parameter and a copy; side by side is fine."""
    a, b = pair
    for params in ([a, b], {"x": a, "y": b}, [{"params": a}, {"params": [b]}]):
        with pytest.raises(ValueError, match="shares memory with parameter"):
            instep.SGD(params)
    optimizer = instep.SGD([a, np.zeros(b.shape, "f4")])
    before = snapshot(optimizer)
    with pytest.raises(
        ValueError,
        match=r"gradient of '1' must have memory of its own, got .* shares memory with parameter '0'",
    ):
        optimizer.step([None, b])
    assert snapshot(optimizer) == before
    half = np.zeros(a.shape, "f2")
    with pytest.raises(ValueError, match="shares memory with"):
        instep.SGD([a, half.astype("f4")], copy_to=[half, half])


def test_the_same_gradient_twice_is_fine() -> None:
    g = np.arange(1.0, 6.0)
    params = [np.zeros(5), np.zeros(5)]
    optimizer = instep.SGD(params, lr=1.0)
    optimizer.accumulate([g, g])
    optimizer.step([g, g])
    for p in params:
        assert_same_bits(p, -2 * g)


@pytest.mark.parametrize("k", range(7))
def test_an_error_in_the_kth_tensor(k: int) -> None:
    """Found before the first is touched: weights, states, counts, sums and averages stay, and it goes on."""
    rng = np.random.default_rng(k)
    start = {str(i): numbers(rng, 40_000 if i == 3 else 5, "f4") for i in range(7)}
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.AdamW(params, clip_norm=1.0, ema_decay=0.9)
    reference = Reference("AdamW", start, clip_norm=1.0, ema_decay=0.9)
    grads = [{n: numbers(rng, p.shape, "f4") for n, p in start.items()} for _ in range(2)]
    optimizer.step(grads[0])
    optimizer.accumulate(grads[1])
    reference.step(grads[0])
    reference.accumulate(grads[1])
    size = start[str(k)].size
    before = snapshot(optimizer)
    for bad in (np.zeros(size + 1), np.zeros(size, int), params[str(k)], [0.0] * size):
        for call in (optimizer.step, optimizer.accumulate):
            with pytest.raises((ValueError, TypeError), match=f"gradient of '{k}'"):
                call({**grads[0], str(k): bad})
    assert snapshot(optimizer) == before
    optimizer.step(grads[0])
    reference.step(grads[0])
    assert_follows(optimizer, params, reference)
    assert optimizer.step_count == 2


# ---- mapped from files --------------------------------------------------------------------------------


def file_of_ones(folder: Path) -> Path:
    path = folder / "weights.bin"
    np.ones(5000, "f4").tofile(path)
    return path


@pytest.mark.parametrize("mode", ["r+", "w+"])
def test_a_writeable_map_persists(mode: Any, tmp_path: Path) -> None:
    path = file_of_ones(tmp_path)
    w = np.memmap(path, "f4", mode, shape=(5000,))
    w[...] = 1.0
    reference = Reference("Adam", {"0": np.ones(5000, "f4")})
    optimizer = instep.Adam(w)
    for k in range(3):
        g = numbers(np.random.default_rng(k), 5000, "f4")
        optimizer.step(g)
        reference.step({"0": g})
    w.flush()
    assert_same_bits(np.fromfile(path, "f4"), reference.params["0"])


def test_a_read_only_map_is_refused(tmp_path: Path) -> None:
    path = file_of_ones(tmp_path)
    w = np.memmap(path, "f4", "r")
    with pytest.raises(
        ValueError, match=r"parameter '0' must be writeable, .*, got an array that is read-only"
    ):
        instep.Adam(w)
    other = np.zeros(5000)
    instep.SGD(other, lr=1.0).step(w)  # as a gradient it is only read
    assert (other == -1).all()


def test_a_copy_on_write_map_stays_in_memory(tmp_path: Path) -> None:
    path = file_of_ones(tmp_path)
    w = np.memmap(path, "f4", "c")
    instep.SGD(w, lr=1.0).step(np.ones(5000))
    w.flush()
    assert (w == 0).all()
    assert (np.fromfile(path, "f4") == 1).all(), "the file is as it was"


# ---- vanishing under a step ----------------------------------------------------------------------------


def test_nothing_can_be_resized_under_a_step() -> None:
    """On another thread, while steps release the GIL: NumPy refuses; for gradients: threads/test_threads.py."""
    size = 3_000_000
    w, half = np.zeros(size, "f4"), np.zeros(size, "f2")
    optimizer = instep.Adam(w, lr=1.0, copy_to=half, ema_decay=0.5)
    for own in (optimizer.state["0"]["exp_avg"], optimizer.averages["0"]):
        assert not hasattr(own.base, "resize")  # it is no array
    targets = [w, half]
    done, refused, resized = threading.Event(), [0] * len(targets), []

    def resize() -> None:
        while not done.is_set():
            for k, array in enumerate(targets):
                try:
                    array.resize(3, refcheck=False)
                    resized.append(k)
                except ValueError:
                    refused[k] += 1

    thread = threading.Thread(target=resize)
    thread.start()
    for _ in range(10):
        optimizer.step(np.ones(size, "f4"))
    done.set()
    thread.join()
    assert not resized
    assert all(refused)


def test_deletion_during_a_step() -> None:
    """Whatever loses its last name while a step runs on another thread stays until the step is over."""
    code = """
        import gc, threading, time, numpy as np, instep
        def start(size):
            box = [instep.Adam({"w": np.zeros(size, "f4")}, lr=1.0, ema_decay=0.5), {"w": np.ones(size, "f4")}]
            ends = []
            def steps():
                optimizer, grads = box.pop(0), box.pop(0)
                for _ in range(3):
                    optimizer.accumulate(grads)
                    optimizer.step()
                    grads = {"w": grads.pop("w").copy()}
                w = optimizer.params["w"]
                ends.append(w[0] == w[-1] and optimizer.step_count == 3 and float(w.std()) == 0)
            thread = threading.Thread(target=steps)
            thread.start()
            return thread, ends
        threads = [start(3_000_000) for _ in range(3)]
        while any(thread.is_alive() for thread, _ in threads):
            scribble = [np.full(3_000_000, np.nan, "f4") for _ in range(3)]
            del scribble
            gc.collect()
        for thread, ends in threads:
            thread.join()
            assert ends == [True]
    """
    output(code)


# ---- leading back to the optimizer; and objects that never were ----------------------------------------


class Tracked(np.ndarray):
    """An array that can have attributes."""

    optimizer: Any


@pytest.mark.parametrize("rule", OPTIMIZERS)
@pytest.mark.parametrize("role", ["parameter", "copy"])
def test_a_cycle_through_an_array_is_collected(rule: Any, role: str) -> None:
    w = np.zeros(3, "f4").view(Tracked)
    half = np.zeros(3, "f2").view(Tracked)
    averaged = None if RULES[rule.__name__].average else 0.5  # the rule has averages of its own
    optimizer = rule({"w": w}, copy_to={"w": half}, ema_decay=averaged)
    (w if role == "parameter" else half).optimizer = optimizer
    optimizer.step({"w": np.ones(3)})
    optimizer.accumulate({"w": np.ones(3)})
    gone = [weakref.ref(x) for x in (w, half, optimizer, *optimizer.averages.values())]
    gone += [weakref.ref(state) for state in optimizer.state["w"].values()]
    del w, half, optimizer
    gc.collect()
    assert [ref() for ref in gone] == [None] * len(gone)


def test_the_collector_leaves_what_is_in_use() -> None:
    w = np.zeros(3).view(Tracked)
    w.optimizer = instep.SGD(w, lr=1.0)
    for _ in range(5):
        gc.collect()
        w.optimizer.step(np.ones(3))
    assert w.tolist() == [-5.0] * 3


def test_a_plan_is_constructed_or_not_there() -> None:
    plan: Any = instep.SGD(np.zeros(1))._plan
    for make in (
        _core.Plan,
        lambda: _core.Plan.__new__(_core.Plan),
        lambda: object.__new__(_core.Plan),
        lambda: type("Mine", (_core.Plan,), {}),
        plan.__init__,
        lambda: copy.copy(plan),
        lambda: copy.deepcopy(plan),
    ):
        with pytest.raises(TypeError):
            make()
    assert plan.step_count == 0


# ---- no growth -----------------------------------------------------------------------------------------

GROWTH = """
    import gc, os, sys
    import numpy as np
    import instep
    from instep import _core, schedules

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def settle():
        gc.collect()
        getattr(sys, "_clear_type_cache", bool)()  # which keeps names that were looked up, thousands of them

    params = {"w": np.zeros((3, 4), "f4"), "b": np.zeros(4, "f4")}
    good = {"w": np.ones((3, 4)), "b": np.ones(4, "f4")}
    bad = {"w": np.ones((3, 4)), "b": np.ones(5)}
    optimizer = instep.AdamW(params, lr=schedules.Constant(0.1), clip_norm=1.0, ema_decay=0.5)
    plain = instep.SGD(params)
    guarded = instep.SGD(params, nonfinite="raise")
    large = instep.Adam(np.zeros(40_000, "f4"), clip_norm=1.0)
    gradient = np.ones(40_000, "f4")
    _core.testing.set_least_work(1 << 16)

    def refused():
        try:
            optimizer.step(bad)
        except ValueError:
            pass

    def not_finite():
        try:
            guarded.step({"w": np.full((3, 4), np.nan), "b": None})
        except FloatingPointError:
            pass

    def parts():
        optimizer.accumulate(good)
        optimizer.step(good, grad_scale=0.5)

    def evaluated():
        with optimizer.averaged():
            pass

    saved = optimizer.state_dict()
    actions = {
        "steps": (100_000, lambda: optimizer.step(good)),
        "fresh gradients": (20_000, lambda: plain.step({"w": np.ones((3, 4)), "b": np.ones(4)})),
        "steps of a team": (3_000, lambda: large.step(gradient)),
        "refused steps": (100_000, refused),
        "guarded steps": (20_000, not_finite),
        "accumulation": (100_000, parts),
        "averages": (10_000, evaluated),
        "saving and loading": (3_000, lambda: optimizer.load_state_dict(optimizer.state_dict())),
        "settings": (20_000, lambda: setattr(optimizer, "clip_norm", 2.0) or optimizer.step(good)),
        "optimizers": (2_000, lambda: instep.Adam(params).step(good)),
    }
    for name, (repeats, action) in actions.items():
        for _ in range(max(repeats // 10, 2_000)):  # until the allocator has what it keeps
            action()
        settle()
        bytes_before, blocks_before = resident(), sys.getallocatedblocks()
        for _ in range(repeats):
            action()
        settle()
        print(f"{name}: {resident() - bytes_before} {sys.getallocatedblocks() - blocks_before}")
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_no_growth() -> None:
    """Over 100,000 steps; 16 bytes leaked in each would be five times the limit, and what is seen is a page or none."""
    # The address sanitizer would keep what has been freed, to notice its use; the rest of its options as they are.
    keeping = "quarantine_size_mb=0:thread_local_quarantine_size_kb=0"
    options = ":".join(filter(None, [os.environ.get("ASAN_OPTIONS"), keeping]))
    lines = output(GROWTH, timeout=240, ASAN_OPTIONS=options).splitlines()
    assert len(lines) == 10
    for line in lines:
        resident, blocks = map(int, line.split(": ")[1].split())
        assert blocks < 50, line
        assert resident < 300_000, line
