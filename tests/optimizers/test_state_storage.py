"""States in files (docs/state-storage.md): the bits of the plain optimizer, and what can be seen of the files."""

from __future__ import annotations

import copy
import pickle
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import (
    BFLOAT16,
    CHUNK,
    FEW,
    MATRIX_VARIANTS,
    THREADS,
    VARIANTS,
    fitting,
    rng_for,
)
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule
from sequences import Sequences
from stored import Pair, Stored, assert_same_optimizers, mixed
from strategies import setups
from twins import Twins

import instep
from instep import _core, checkpoint

pytestmark = pytest.mark.skipif("sys.platform == 'win32'", reason="refused on Windows")

SHAPES = [(100,), (3, CHUNK), (CHUNK - 1, 2), (0,), (), (2 * CHUNK + 5,), (7,), (5, CHUNK // 5)]


@pytest.fixture(autouse=True)
def _small_windows() -> None:
    """Each window has one unit of the sweep."""
    _core.testing.set_window_bytes(1)


def take_steps(pair: Pair, rng: np.random.Generator, dtype: Any, steps: int = 5) -> None:
    shapes = [p.shape for p in pair.plain.params.values()]
    for t in range(steps):
        grads = [
            rng.standard_normal(s).astype(dtype) if rng.random() < 0.8 else None for s in shapes
        ]
        if t == 2:
            pair.accumulate(grads)
            pair.step(None, grad_scale=0.5)
        else:
            pair.step(grads)
        pair.check()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_the_bits_of_the_plain_optimizer(variant: Any, dtype: str, tmp_path: Path) -> None:
    rng = rng_for(variant, dtype)
    pair = Pair(variant, mixed(rng, SHAPES, [dtype]), tmp_path)
    take_steps(pair, rng, dtype)


def test_the_bits_without_a_thread_for_input_and_output(tmp_path: Path) -> None:
    _core.testing.set_input_thread(False)
    try:
        for variant in FEW[:6]:
            rng = rng_for(variant)
            take_steps(Pair(variant, mixed(rng, SHAPES, ["float32"]), tmp_path), rng, "float32")
    finally:
        _core.testing.set_input_thread(True)


@pytest.mark.parametrize("variant", MATRIX_VARIANTS, ids=str)
def test_the_bits_of_matrices(variant: Any, tmp_path: Path) -> None:
    shapes = [(300, 200), (1, CHUNK), (3, 4), (400, 100)]
    rng = rng_for(variant)
    take_steps(Pair(variant, mixed(rng, shapes, ["float32"]), tmp_path), rng, "float32")


@pytest.mark.parametrize("more", [
    {"state_dtype": BFLOAT16},
    {"state_dtype": np.float16, "ema_decay": 0.9},
    {"ema_decay": 0.9, "clip_norm": 1.0},
    {"nonfinite": "skip"},
], ids=str)  # fmt: skip
@pytest.mark.parametrize("variant", FEW, ids=str)
def test_the_bits_with_other_settings(variant: Any, more: dict[str, Any], tmp_path: Path) -> None:
    rng = rng_for(variant, more)
    dtypes = ["float32", "float16", BFLOAT16]
    params = mixed(rng, SHAPES, dtypes)
    pair = Pair(variant, params, tmp_path, **fitting(variant, more, *dtypes))
    take_steps(pair, rng, "float32", 3)
    spoilt = [np.full(p.shape, np.inf, "float32") for p in params]
    if "nonfinite" in more:
        pair.step(spoilt)
        pair.check()
    take_steps(pair, rng, "float32", 3)


sizes = st.sampled_from([0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 40_000, 70_000])


@given(
    variant=st.sampled_from(FEW),
    sizes=st.lists(sizes, min_size=1, max_size=6),
    threads=st.sampled_from(THREADS),
    window=st.sampled_from([1, 1 << 17, 1 << 18, 1 << 25]),
    data=st.data(),
)
def test_windows_of_any_size(
    variant: Any, sizes: list[int], threads: int, window: int, data: Any
) -> None:
    _core.testing.set_window_bytes(window)
    _core.testing.set_least_work(1)
    instep.set_num_threads(threads)
    rng = np.random.default_rng(len(sizes))
    with tempfile.TemporaryDirectory() as folder:
        more = fitting(variant, {"ema_decay": 0.9}, np.float32)
        pair = Pair(variant, mixed(rng, sizes, ["float32"]), folder, **more)
        for _ in range(data.draw(st.integers(1, 6))):
            there = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
            pair.step([
                rng.standard_normal(size).astype("f4") if is_there else None
                for size, is_there in zip(sizes, there, strict=True)
            ])  # fmt: skip
            pair.check()
        del pair


class InFolders(Sequences):
    """Any sequence of calls, as for other optimizers, but for copies."""

    @initialize(setup=setups())
    def make(self, setup: Any) -> None:
        self.folder = tempfile.TemporaryDirectory()
        setup.variant = Stored(setup.variant, self.folder.name)
        self.twins = Twins(setup)

    @rule(how=st.sampled_from([copy.copy, copy.deepcopy, pickle.dumps]))
    def copy_it(self, how: Any) -> None:
        with pytest.raises(TypeError, match="with state_storage can't be copied or pickled"):
            how(self.optimizer)

    def teardown(self) -> None:
        if hasattr(self, "twins"):
            del self.twins
            self.folder.cleanup()


TestInFolders = InFolders.TestCase


def test_groups_that_are_added_later_have_files_of_their_own(tmp_path: Path) -> None:
    rng = rng_for()
    params = [rng.standard_normal(n).astype("f4") for n in (CHUNK + 3, 10)]
    later = rng.standard_normal((2, CHUNK)).astype("f4")
    plain = instep.Adam([p.copy() for p in params], ema_decay=0.5)
    stored = instep.Adam([p.copy() for p in params], ema_decay=0.5, state_storage=tmp_path / "a")
    for optimizer in (plain, stored):
        optimizer.step([p.copy() for p in params])
        optimizer.add_param_group({"params": [later.copy()]})
        with pytest.raises(ValueError, match="memory of its own"):
            optimizer.add_param_group({"params": [optimizer.params["0"]]})
        for _ in range(3):
            optimizer.step([[p.copy() for p in params], [later]])
    assert_same_optimizers(stored, plain)
    names = [f"instep-{k}-{name}.states" for k, name in enumerate(2 * NAMES)]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [*names, "instep.lock"]


NAMES = ("exp_avg", "exp_avg_sq", "average")


def test_the_files_hold_what_the_views_show_and_go_with_the_optimizer(tmp_path: Path) -> None:
    optimizer = instep.Adam(np.zeros(CHUNK + 9), state_storage=str(tmp_path))
    assert f"state_storage={str(tmp_path)!r}" in repr(optimizer)
    view = optimizer.state["0"]["exp_avg"]
    for _ in range(3):
        optimizer.step(np.arange(CHUNK + 9.0))
        stored = np.fromfile(tmp_path / "instep-0-exp_avg.states", count=view.size)
        assert stored.any()
        assert stored.tobytes() == view.tobytes()
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 1.0
    with pytest.raises(ValueError, match="WRITEABLE"):
        view.flags.writeable = True
    before = view.copy()
    del optimizer
    assert list(tmp_path.iterdir()) == []
    assert view.tobytes() == before.tobytes()


def test_scalar_states_and_rules_without_states_need_no_file(tmp_path: Path) -> None:
    optimizer = instep.SGD(np.ones(3), lr=0.5, state_storage=tmp_path)
    optimizer.step(np.ones(3))
    assert optimizer.params["0"].tolist() == [0.5] * 3
    assert [path.name for path in tmp_path.iterdir()] == ["instep.lock"]
    optimizer = instep.NAdam(np.ones(3), state_storage=tmp_path / "nadam")
    optimizer.step(np.ones(3))
    assert optimizer.state["0"]["mu_product"].flags.writeable


def test_parameters_may_be_maps_too(tmp_path: Path) -> None:
    shape = (2 * CHUNK + 1,)
    weights = np.memmap(tmp_path / "weights", np.float32, "w+", shape=shape)
    plain = np.zeros(shape, np.float32)
    stored, other = instep.Adam(weights, state_storage=tmp_path / "s"), instep.Adam(plain)
    for k in range(3):
        grad = np.full(shape, k + 1.0, np.float32)
        stored.step(grad)
        other.step(grad)
    assert weights.tobytes() == plain.tobytes()


@pytest.mark.parametrize("kept", [False, True])
def test_a_run_goes_on_from_a_checkpoint(tmp_path: Path, kept: bool) -> None:
    """From a plain optimizer to one with files, and back."""
    rng = rng_for(kept)
    shapes = [(CHUNK, 3), (5,)]
    more: dict[str, Any] = {"ema_decay": 0.9, "state_dtype": "float16"}
    pair = Pair(
        VARIANTS[0].__class__(instep.Adam, {}, "Adam"), mixed(rng, shapes, ["f4"]), tmp_path, **more
    )
    take_steps(pair, rng, "f4")
    for source, target in ((pair.plain, pair.stored), (pair.stored, pair.plain)):
        checkpoint.save(tmp_path / "run", source)
        take_steps(pair, rng, "f4", 2)
        if kept:
            checkpoint.load(tmp_path / "run", pair.plain)
            checkpoint.load(tmp_path / "run", pair.stored)
        else:
            checkpoint.load(tmp_path / "run", target)
            other = pair.stored if target is pair.plain else pair.plain
            other.load_state_dict(target.state_dict())
            for name, p in other.params.items():
                p[...] = target.params[name]
        pair.check()
        take_steps(pair, rng, "f4", 2)


@pytest.mark.parametrize("state_dtype", [None, BFLOAT16])
def test_a_rule_that_shows_its_own_average(tmp_path: Path, state_dtype: Any) -> None:
    shown = []
    for more in ({}, {"state_storage": tmp_path}):
        w = np.ones(3 * CHUNK + 1, np.float32)
        optimizer = instep.ScheduleFreeAdamW(w, lr=0.1, state_dtype=state_dtype, **more)
        for k in range(3):
            optimizer.step(np.full(w.size, 1.0 + k, np.float32))
        with optimizer.averaged():
            shown.append(w.tobytes())
        shown.append(w.tobytes())
    assert shown[:2] == shown[2:]


def test_states_exchanged_within_the_optimizer(tmp_path: Path) -> None:
    optimizer = instep.Adam(np.zeros(3 * CHUNK), state_storage=tmp_path)
    optimizer.step(np.arange(3.0 * CHUNK))
    state, own = optimizer.state_dict(), optimizer.state["0"]
    expected = [own["exp_avg_sq"].copy(), own["exp_avg"][::-1].copy()]
    state["state"]["0"] = {"exp_avg": own["exp_avg_sq"], "exp_avg_sq": own["exp_avg"][::-1]}
    optimizer.load_state_dict(state)
    assert [array.tobytes() for array in own.values()] == [e.tobytes() for e in expected]


def test_a_combined_of_both_kinds(tmp_path: Path) -> None:
    def made(**more: Any) -> instep.Combined:
        w, b = np.ones((200, 300), np.float32), np.ones(CHUNK + 1, np.float32)
        parts = instep.Muon({"w": w}, **more), instep.AdamW({"b": b})
        return instep.Combined(*parts, clip_norm=1.0)

    plain, stored = made(), made(state_storage=tmp_path)
    rng = rng_for()
    for _ in range(3):
        grads = {"w": rng.standard_normal((200, 300)), "b": rng.standard_normal(CHUNK + 1)}
        plain.step(grads)
        stored.step(grads)
    assert stored.grad_norm == plain.grad_norm
    for one, other in zip(stored.optimizers, plain.optimizers, strict=True):
        assert_same_optimizers(one, other)
    with pytest.raises(TypeError, match="can't be copied or pickled"):
        copy.deepcopy(stored)


def test_threads_take_turns(tmp_path: Path) -> None:
    size = 60 * CHUNK
    grad = np.linspace(-1, 1, size, dtype=np.float32)
    plain = instep.Adam(np.ones(size, np.float32))
    stored = instep.Adam(np.ones(size, np.float32), state_storage=tmp_path)
    seen = []

    def steps() -> None:
        for _ in range(5):
            stored.step(grad)
            seen.append(stored.state_dict())

    threads = [threading.Thread(target=steps) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    states = {}
    for _ in range(15):
        plain.step(grad)
        states[plain.step_count] = plain.state["0"]["exp_avg"].tobytes()
    assert_same_optimizers(stored, plain)
    for state in seen:
        assert state["state"]["0"]["exp_avg"].tobytes() == states[state["step_count"]]


def test_it_is_a_setting_of_the_whole_optimizer(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="give state_storage to the optimizer, for all groups"):
        instep.Adam([{"params": np.ones(1), "state_storage": tmp_path}])
    with pytest.raises(ValueError, match="state_storage must be the path of a folder, got ''"):
        instep.Adam(np.ones(1), state_storage="")
    with pytest.raises(TypeError, match="state_storage must be a path or None, got an int"):
        instep.Adam(np.ones(1), state_storage=3)  # type: ignore[arg-type]
