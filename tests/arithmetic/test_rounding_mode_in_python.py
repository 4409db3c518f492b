"""What Python computes for a step, under a rounding mode that the program has set: no bit changes."""

from __future__ import annotations

import ctypes
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import instep
from instep import _core, checkpoint, interop, schedules
from instep.schedules import Constant, Linear, Product

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.system() != "Linux",
    reason="sets the rounding mode through glibc, in x86-64's numbers",
)

NEAREST, DOWN, UP, TO_ZERO = 0, 0x400, 0x800, 0xC00  # of x86-64
MODES = {"down": DOWN, "up": UP, "to zero": TO_ZERO}
every_mode = pytest.mark.parametrize("mode", MODES.values(), ids=MODES)
libm = ctypes.CDLL("libm.so.6") if platform.system() == "Linux" else None


@contextmanager
def rounding(mode: int) -> Iterator[None]:
    """Have the block compute with this mode; it must have it still at its end."""
    assert libm is not None
    libm.fesetround(mode)
    try:
        yield
        left = libm.fegetround()
    finally:
        libm.fesetround(NEAREST)
    assert left == mode


def one_third(step: float) -> float:
    """A schedule of the user's, which rounds."""
    return (step + 1.0) / 3.0


LRS: dict[str, Callable[[float], float]] = {
    "linear": Linear(0.1, 0.7, 300),
    "cosine": schedules.CosineDecay(0.1, 300),
    "exponential": schedules.ExponentialDecay(0.1, 0.987),
    "product": Linear(0.1, 0.7, 300) * schedules.InverseSqrtDecay(0.3),
    "the user's": one_third,
    "the user's in a product": 0.1 * Product(1.0, one_third),
}


@every_mode
@pytest.mark.parametrize("name", LRS)
def test_schedules_of_a_step(name: str, mode: int) -> None:
    """p -= lr * 1 from p = 0, in float64: each step shows its learning rate to the bit."""
    params = {"plain": np.zeros(1), "disturbed": np.zeros(1)}
    optimizers = {key: instep.SGD(p, lr=LRS[name]) for key, p in params.items()}
    for _ in range(200):
        for p in params.values():
            p[...] = 0.0
        optimizers["plain"].step(np.ones(1))
        with rounding(mode):
            optimizers["disturbed"].step(np.ones(1))
        assert params["plain"].tobytes() == params["disturbed"].tobytes()


@every_mode
def test_what_a_schedule_raises_leaves_the_mode_as_it_was(mode: int) -> None:
    def fails(_: float) -> float:
        raise KeyError("no rate")

    optimizer = instep.SGD(np.ones(1), lr=fails)
    with rounding(mode), pytest.raises(KeyError, match="no rate"):
        optimizer.step(np.ones(1))
    with rounding(mode), pytest.raises(TypeError):
        _core.in_default_environment(fails)


@every_mode
def test_folded_numbers_and_quotients(mode: int) -> None:
    f = Linear(0.3, 0.7, 11)
    numbers = np.random.default_rng(3).standard_normal(200).tolist()

    def made() -> list[Any]:
        pairs = pairwise(numbers)
        return [
            made for a, b in pairs for made in (a * (b * f), a * Constant(b), f / a, (a * f) / b)
        ]

    wanted = made()
    with rounding(mode):
        found = made()
    assert found == wanted


@every_mode
def test_the_scale_of_a_loss(mode: int) -> None:
    """1 / scale of a scale that is no power of two, and what the factors make of it."""
    params = {"plain": np.zeros(1), "disturbed": np.zeros(1)}
    optimizers = {k: instep.SGD(p, lr=1.0, nonfinite="skip") for k, p in params.items()}
    scalers = {
        k: instep.LossScaler(1000.0, growth_factor=1.1, backoff_factor=0.7, growth_interval=1)
        for k in params
    }
    for step in range(100):
        gradient = np.array([np.inf if step % 7 == 3 else 1.0])
        for p in params.values():
            p[...] = 0.0
        scalers["plain"].step(optimizers["plain"], gradient)
        with rounding(mode):
            scalers["disturbed"].step(optimizers["disturbed"], gradient)
        assert params["plain"].tobytes() == params["disturbed"].tobytes()
        assert scalers["plain"].scale == scalers["disturbed"].scale


@every_mode
def test_averages_in_narrower_parameters(mode: int) -> None:
    """They are wider than their parameters, so that showing them rounds."""
    rng = np.random.default_rng(4)
    p = rng.standard_normal(1000).astype("f2")
    optimizer = instep.SGD(p, lr=0.1, ema_decay=0.3)
    for _ in range(3):
        optimizer.step(rng.standard_normal(1000))
    with optimizer.averaged():
        wanted = p.tobytes()
    with rounding(mode), optimizer.averaged():
        found = p.tobytes()
    assert found == wanted


@every_mode
def test_states_to_torch_and_back(mode: int) -> None:
    rng = np.random.default_rng(5)
    lr = schedules.ExponentialDecay(0.1, 0.987)
    first = instep.Adam({"w": rng.standard_normal(500)}, lr=lr)
    for _ in range(9):
        first.step({"w": rng.standard_normal(500)})
    wanted = interop.to_torch_state_dict(first)
    with rounding(mode):
        found = interop.to_torch_state_dict(first)
    assert found["param_groups"] == wanted["param_groups"]
    narrow = [instep.Adam({"w": np.zeros(500, "f4")}, state_dtype="f2") for _ in range(2)]
    interop.from_torch_state_dict(narrow[0], wanted)
    with rounding(mode):
        interop.from_torch_state_dict(narrow[1], wanted)
    for key, array in narrow[0].state["w"].items():
        assert narrow[1].state["w"][key].tobytes() == array.tobytes()


@every_mode
def test_numbers_of_a_checkpoint(mode: int, tmp_path: Path) -> None:
    """They are written as text, and read from it: that rounds, too."""
    pytest.importorskip("safetensors", reason="safetensors is not installed")
    numbers = (np.random.default_rng(6).standard_normal(2000) * 1e-3).tolist()
    extra = {"losses": numbers, "largest": 1.7976931348623157e308, "least": 5e-324}
    first = instep.SGD(np.ones(2), lr=abs(numbers[0]))
    checkpoint.save(tmp_path / "plain", first, extra)
    with rounding(mode):
        checkpoint.save(tmp_path / "disturbed", first, extra)
    for name in ("plain", "disturbed"):
        second = instep.SGD(np.ones(2))
        with rounding(mode):
            found = checkpoint.load(tmp_path / name, second)
            seen = checkpoint.inspect(tmp_path / name)
        assert found == seen["extra"] == json.loads(json.dumps(extra))
        assert second.lr == first.lr
