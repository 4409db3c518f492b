"""Muon: what is refused, the memory that it keeps, and its phase between two sweeps."""

from __future__ import annotations

import copy
import gc
import signal
import threading
import tracemalloc
from typing import Any

import numpy as np
import pytest
from cases import rng_for
from interpreters import output
from resumed import WAYS, resumed
from snapshots import snapshot

import instep
from instep import schedules
from instep.optimizers import newton_schulz


def matrices(seed: object, *shapes: tuple[int, int]) -> list[np.ndarray]:
    rng = rng_for("muon", seed)
    return [rng.standard_normal(shape) for shape in shapes or ((4, 6), (5, 3))]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must have two axes") as caught:
        instep.Muon({"w": np.ones((2, 2)), "b": np.ones(shape)})
    assert str(caught.value) == (
        f"parameter 'b' must have two axes for a rule of matrices, got the shape {shape}; give it to "
        "AdamW, and combine both by instep.Combined"
    )
    optimizer = instep.Muon({"w": np.ones((2, 2))})
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match="must have two axes"):
        optimizer.add_param_group({"params": np.ones(shape)})
    assert snapshot(optimizer) == before


@pytest.mark.parametrize(
    ("name", "value", "error", "text"),
    [
        ("adjust_lr", "rms", ValueError, "must be one of match_rms_adamw, original, got 'rms'"),
        ("adjust_lr", None, ValueError, "must be one of match_rms_adamw, original, got None"),
        ("ns_steps", 2.0, TypeError, "must be an int, a number in [1, 99], got 2.0"),
        ("ns_steps", True, TypeError, "must be an int, a number in [1, 99], got True"),
        (
            "ns_steps",
            schedules.Constant(5),
            TypeError,
            "must be an int, a number in [1, 99], got Con",
        ),
        ("ns_steps", 0, ValueError, "must be a number in [1, 99], got 0"),
        (
            "ns_coefficients",
            (1.0, 2.0),
            TypeError,
            "must be three numbers, each a number in [-1000, 1",
        ),
    ],
)
def test_numbers_that_are_refused(name: str, value: Any, error: type, text: str) -> None:
    with pytest.raises(error) as caught:
        instep.Muon(np.ones((2, 2)), **{name: value})
    assert str(caught.value).startswith(f"{name} {text}")


def test_the_factor_is_fixed_and_the_iterations_are_not() -> None:
    optimizer = instep.Muon(np.ones((2, 2)), ns_steps=np.int64(3))
    optimizer.ns_steps = 7
    assert optimizer.ns_steps == 7
    with pytest.raises(ValueError, match="adjust_lr must stay 'match_rms_adamw', got 'original'"):
        optimizer.adjust_lr = "original"


@pytest.mark.parametrize("way", WAYS)
def test_a_resumed_run_has_the_same_bits(way: str, tmp_path: Any) -> None:
    first = instep.Muon(matrices(0), lr=0.1, adjust_lr="original")
    first.step(matrices(1))
    fresh = instep.Muon([p.copy() for p in first.params.values()], adjust_lr="original")
    second = resumed(way, first, fresh, tmp_path)
    for optimizer in (first, second):
        optimizer.step(matrices(2))
    assert snapshot(first) == snapshot(second)


def test_all_directions_count_alike() -> None:
    """The singular values of a step lie near q * lr, however different those of the gradient are."""
    w = np.zeros((20, 30))
    grad = matrices(0, (20, 30))[0] * np.geomspace(1, 30, 20)[:, None]
    instep.Muon(w, lr=0.5, weight_decay=0.0, adjust_lr="original", ns_steps=8).step(grad)
    found = np.linalg.svd(w, compute_uv=False) / 0.5
    assert found.min() > 0.6
    assert found.max() < 1.3
    assert np.linalg.svd(grad, compute_uv=False).max() > 20 * np.linalg.svd(grad)[1].min()


def test_gradients_that_are_all_zero() -> None:
    """Of one matrix: its parameter decays, or without eps becomes NaN; the other one moves as alone."""
    for eps, expected in ((1e-7, 0.5), (0.0, np.nan)):
        (other,), (grad,) = matrices(0, (3, 4)), matrices(1, (3, 4))
        params = {"w": np.ones((2, 3)), "other": other.copy()}
        optimizer = instep.Muon(params, lr=0.5, weight_decay=1.0, eps=eps)
        optimizer.step({"w": np.zeros((2, 3)), "other": grad})
        np.testing.assert_array_equal(params["w"], expected)
        instep.Muon(other, lr=0.5, weight_decay=1.0, eps=eps).step(grad)
        assert np.array_equal(params["other"], other)


def test_the_transpose_takes_the_transposed_step() -> None:
    (w,), (g,) = matrices(0, (6, 9)), matrices(1, (6, 9))
    wide, tall = w.copy(), w.T.copy()
    instep.Muon(wide, lr=0.1).step(g)
    instep.Muon(tall, lr=0.1).step(g.T.copy())
    np.testing.assert_allclose(tall.T, wide, rtol=1e-12)


# ---- memory ----------------------------------------------------------------------------------------------------------


def test_nothing_of_the_size_of_a_matrix_is_allocated_after_the_first_step() -> None:
    shapes = ((200, 300), (300, 100))
    params = matrices(0, *shapes)
    optimizer = instep.Muon(params)
    grads = matrices(1, *shapes)
    optimizer.step(grads)
    gc.collect()
    tracemalloc.start()
    try:
        for _ in range(3):
            optimizer.step(grads)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100 * 100 * 8 / 4


def test_the_room_of_a_type_is_for_its_own_matrices() -> None:
    products = newton_schulz.NewtonSchulz()
    numbers = {"eps": 1e-7, "ns_steps": 1.0}
    numbers |= {f"ns_coefficient{k}": 1.0 for k in (1, 2, 3)}
    shapes = {np.float32: (30, 40), np.float64: (2, 3)}
    products([(np.ones(shape, dtype), 1.0, numbers) for dtype, shape in shapes.items()])
    found = {dtype.type: room.size for dtype, room in products._rooms.items()}
    assert found == {dtype: m * (2 * m + n) for dtype, (m, n) in shapes.items()}


def test_memory_is_kept_for_the_parameters_that_get_gradients_alone() -> None:
    optimizer = instep.Muon(matrices(0))
    optimizer.step([matrices(1)[0], None])
    optimizer.step(matrices(2))
    optimizer.add_param_group({"params": matrices(3, (40, 50))})
    optimizer.step([[None, None], matrices(4, (40, 50))])
    assert optimizer.step_count == 3


# ---- the phase between the sweeps ------------------------------------------------------------------------------------


def interrupt_in(monkeypatch: pytest.MonkeyPatch, action: Any) -> None:
    """Call the action in the middle of the products."""
    real = newton_schulz.NewtonSchulz._orthogonalize

    def patched(self: Any, x: Any, *arguments: Any) -> None:
        real(self, x, *arguments)
        action()

    monkeypatch.setattr(newton_schulz.NewtonSchulz, "_orthogonalize", patched)


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_error_between_the_sweeps_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    optimizer = instep.Muon(matrices(0), ema_decay=0.9, clip_norm=1.0)
    twin = copy.deepcopy(optimizer)
    before = snapshot(optimizer)

    def fail() -> None:
        raise error

    with monkeypatch.context() as patched:
        interrupt_in(patched, fail)
        with pytest.raises(error):
            optimizer.step(matrices(1))
        optimizer.accumulate(matrices(2))
        with pytest.raises(error):
            optimizer.step(matrices(1))
    assert {n: a.tolist() for n, a in optimizer.accumulated.items()} == {
        str(i): g.tolist() for i, g in enumerate(matrices(2))
    }
    optimizer.discard_accumulated()
    assert snapshot(optimizer) == before
    for each in (optimizer, twin):
        each.step(matrices(1))
    assert snapshot(optimizer) == snapshot(twin)


def test_a_signal_handler_may_save_between_the_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = instep.Muon(matrices(0))
    before = snapshot(optimizer)
    found: list[Any] = []

    def handler(*_: object) -> None:
        found.append(snapshot(optimizer))
        with pytest.raises(RuntimeError, match="step"):
            optimizer.step(matrices(1))

    old = signal.signal(signal.SIGINT, handler)
    try:
        interrupt_in(monkeypatch, lambda: signal.raise_signal(signal.SIGINT))
        optimizer.step(matrices(1))
    finally:
        signal.signal(signal.SIGINT, old)
    assert found == [before, before]
    assert optimizer.step_count == 1


def test_threads_take_turns() -> None:
    optimizer = instep.Muon(matrices(0))
    grads = matrices(1)
    threads = [
        threading.Thread(target=lambda: [optimizer.step(grads) for _ in range(20)])
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    twin = instep.Muon(matrices(0))
    for _ in range(60):
        twin.step(grads)
    assert snapshot(optimizer) == snapshot(twin)


def test_a_parameter_may_be_dropped_between_the_sweeps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another thread may let go of arrays while NumPy computes: the step holds their memory."""
    params = matrices(0)
    optimizer = instep.Muon(params)
    grads = matrices(1)
    interrupt_in(monkeypatch, grads.clear)
    optimizer.step(grads)
    assert not grads
    assert np.isfinite(params[0]).all()


# ---- places of a host ------------------------------------------------------------------------------------------------


def test_no_step_imports_a_module() -> None:
    """A Ctrl-C in the import would leave half a module, and every later step would fail."""
    code = """
        import sys
        import numpy as np
        import instep
        w = np.ones((2, 2))
        optimizer = instep.Muon(w)
        before = set(sys.modules)
        optimizer.step(np.ones((2, 2)))
        print(sorted(set(sys.modules) - before))
    """
    assert output(code).strip() == "[]"


def test_places_of_a_host() -> None:
    (w,), (g,) = matrices(0, (6, 4)), matrices(1, (6, 4))
    optimizer = instep.Muon(w.copy(), lr=0.1)
    optimizer.step(g)
    steps = instep.Steps()
    steps.add_group("muon", ["nesterov"])
    steps.append(2)
    b = np.zeros_like(w)
    steps.bind(1, w, states={"momentum_buffer": b})
    numbers = {"lr": 0.1, "momentum": 0.95, "weight_decay": 0.1, "ns_steps": 5, "eps": 1e-7}
    numbers |= {f"ns_coefficient{k + 1}": x for k, x in enumerate((3.4445, -4.775, 2.0315))}
    with pytest.raises(TypeError, match="ns_steps of group 0 must be an int"):
        steps.step([None, g], [{**numbers, "ns_steps": 5.5}])
    steps.step([None, g], [numbers])
    assert np.array_equal(w, optimizer.params["0"])
    steps.bind(1, w, states={"momentum_buffer": b}, t=1)
    steps.step([None, g], [numbers])
    optimizer.step(g)
    assert np.array_equal(w, optimizer.params["0"])
    with pytest.raises(ValueError, match="must have two axes"):
        steps.bind(0, np.ones(3), states={"momentum_buffer": np.zeros(3)})
