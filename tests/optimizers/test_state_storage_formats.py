"""States in 8 bits, their units and remainders in files: the bits of the plain optimizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, THREADS, Variant, rng_for
from formulas import RULES
from storage_cases import BY_LABEL, pairs
from storage_cases import Stored as Kept
from stored import Pair, assert_same_optimizers, mixed

import instep
from instep import _core, checkpoint

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="refused on Windows")

SHAPES = [(100,), (3, CHUNK), (CHUNK - 1, 2), (0,), (), (2 * CHUNK + 65,), (4097,), (5, CHUNK // 5)]
MATRICES = [(300, 200), (1, CHUNK), (3, 4), (400, 100)]
CODES = {"state_dtype": "8bit"}


@pytest.fixture(autouse=True)
def _windows() -> None:
    """Each window has one unit of the sweep, if a test says no other size."""
    _core.testing.set_window_bytes(1)


def take_steps(pair: Pair, rng: np.random.Generator, steps: int) -> None:
    shapes = [p.shape for p in pair.plain.params.values()]
    for t in range(steps):
        grads: list[Any] = [
            rng.standard_normal(s).astype("f4") * 10 ** (1 - t) if rng.random() < 0.8 else None
            for s in shapes
        ]
        if t == 1:
            pair.accumulate(grads)
            pair.step(None, grad_scale=0.5)
        else:
            pair.step(grads)
        pair.check()


PAIRS = pairs(6, instep.AdamW, instep.Prodigy, instep.ScheduleFreeAdamW)


@pytest.mark.parametrize(("variant", "kept"), PAIRS, ids=str)
def test_the_bits_of_the_plain_optimizer(variant: Variant, kept: Kept, tmp_path: Path) -> None:
    rng = rng_for(variant, kept.label)
    rule = RULES[variant.rule.__name__]
    more = {} if rule.matrices or rule.average else {"ema_decay": 0.9}
    shapes = MATRICES if rule.matrices else SHAPES
    params = mixed(rng, shapes, [kept.dtype])
    pair = Pair(variant, params, tmp_path, **more, **kept.of(variant) or {})
    take_steps(pair, rng, 4)


def adam(**more: Any) -> tuple[Variant, dict[str, Any]]:
    return Variant(instep.Adam, {}, "Adam"), {**CODES, "master_bits": 24, "ema_decay": 0.9, **more}


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("window", [1, 1 << 15, 1 << 17, 1 << 25])
def test_windows_of_any_size(window: int, threads: int, tmp_path: Path) -> None:
    _core.testing.set_window_bytes(window)
    _core.testing.set_least_work(1)
    instep.set_num_threads(threads)
    rng = rng_for(window)
    variant, more = adam()
    take_steps(Pair(variant, mixed(rng, SHAPES, [BFLOAT16, "f4"]), tmp_path, **more), rng, 4)


def test_the_bits_without_a_thread_for_input_and_output(tmp_path: Path) -> None:
    _core.testing.set_input_thread(False)
    try:
        rng = rng_for()
        variant, more = adam()
        take_steps(Pair(variant, mixed(rng, SHAPES, [BFLOAT16]), tmp_path, **more), rng, 4)
    finally:
        _core.testing.set_input_thread(True)


def test_units_and_remainders_have_files_that_hold_what_the_views_show(tmp_path: Path) -> None:
    w = np.ones(3 * CHUNK + 70, BFLOAT16)
    optimizer = instep.Adam(w, **CODES, master_bits=32, state_storage=tmp_path)
    for _ in range(3):
        optimizer.step(np.linspace(-1, 1, w.size, dtype=np.float32))
        for path in tmp_path.glob("*.states"):
            key = path.stem.split("-")[-1]
            view = optimizer.state["0"][key]
            stored = np.fromfile(path, view.dtype, view.size)
            assert stored.any(), key
            assert stored.tobytes() == view.tobytes(), key
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1
    names = ("exp_avg", "exp_avg_unit", "exp_avg_sq", "exp_avg_sq_unit", "remainder")
    found = {path.stem.split("-")[-1] for path in tmp_path.glob("*.states")}
    assert found == set(names)
    wide, bytes_in_files = w.size, optimizer.memory()
    assert bytes_in_files["states"] == 2 * wide + 2 * 4 * -(-wide // 64)
    assert bytes_in_files["remainders"] == 2 * wide


@pytest.mark.parametrize("label", ["master-24-codes", "master-32-mixed", "codes"])
def test_a_run_goes_on_from_a_checkpoint(label: str, tmp_path: Path) -> None:
    """From a plain optimizer to one with files, and back."""
    pytest.importorskip("safetensors")
    rng = rng_for(label)
    variant, kept = Variant(instep.Adam, {}, "Adam"), BY_LABEL[label]
    params = mixed(
        rng, [(CHUNK, 80), (5,), (70,)], [kept.dtype]
    )  # of more than 1 MB: kept on the disk
    pair = Pair(variant, params, tmp_path, **kept.of(variant) or {})
    take_steps(pair, rng, 2)
    for source, target in ((pair.plain, pair.stored), (pair.stored, pair.plain)):
        checkpoint.save(tmp_path / "run", source)
        take_steps(pair, rng, 2)
        checkpoint.load(tmp_path / "run", target)
        other = pair.stored if target is pair.plain else pair.plain
        other.load_state_dict(target.state_dict())
        for name, p in other.params.items():
            p[...] = target.params[name]
        pair.check()
        take_steps(pair, rng, 2)


def test_remainders_are_reset(tmp_path: Path) -> None:
    rng = rng_for()
    variant, more = adam()
    pair = Pair(variant, mixed(rng, SHAPES, [BFLOAT16]), tmp_path, **more)
    take_steps(pair, rng, 2)
    assert any(own["remainder"].any() for own in pair.stored.state.values())
    for optimizer in (pair.plain, pair.stored):
        optimizer.reset_remainders()
    assert not any(own["remainder"].any() for own in pair.stored.state.values())
    pair.check()
    take_steps(pair, rng, 2)


def test_an_error_of_the_disk_while_remainders_are_reset(tmp_path: Path) -> None:
    w = np.ones(40 * CHUNK, BFLOAT16)
    optimizer = instep.SGD(w, lr=2**-12, master_bits=32, state_storage=tmp_path)
    optimizer.step(np.ones(w.size, np.float32))
    _core.testing.fail_file_calls_after(1)
    try:
        with pytest.raises(OSError, match="Errno 5"):
            optimizer.reset_remainders()
    finally:
        _core.testing.fail_file_calls_after(-1)
    remainders = optimizer.state["0"]["remainder"]
    assert remainders.any()
    optimizer.reset_remainders()
    assert not remainders.any()
    optimizer.step(np.ones(w.size, np.float32))


@pytest.mark.parametrize("more", [CODES, {"state_dtype": BFLOAT16}, {}], ids=str)
def test_a_rule_that_shows_its_own_average(more: dict[str, Any], tmp_path: Path) -> None:
    shown = []
    for where in ({}, {"state_storage": tmp_path}):
        w = np.ones(3 * CHUNK + 1, BFLOAT16)
        optimizer: Any = instep.ScheduleFreeAdamW(w, lr=0.1, master_bits=24, **more, **where)
        for k in range(3):
            optimizer.step(np.full(w.size, 1.0 + k, np.float32))
        with optimizer.averaged():
            shown.append(w.tobytes())
        shown.append(w.tobytes())
        optimizer.step(np.ones(w.size, np.float32))
        shown.append(w.tobytes())
    assert shown[:3] == shown[3:]


def test_groups_that_are_added_later(tmp_path: Path) -> None:
    rng = rng_for()
    first, later = rng.standard_normal(CHUNK + 3), rng.standard_normal((2, CHUNK))
    both = []
    for where in ({}, {"state_storage": tmp_path}):
        optimizer: Any = instep.Adam([first.astype(BFLOAT16)], master_bits=32, seed=9, **where)
        optimizer.step([first])
        optimizer.add_param_group({"params": [later.astype(BFLOAT16)], **CODES})
        for _ in range(3):
            optimizer.step([[first], [later]])
        both.append(optimizer)
    assert_same_optimizers(both[1], both[0])
