"""A gradient that lies as the last one did takes a short way; one that differs in anything must not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from reference import Reference, assert_same_bits

import instep

SHAPE = (3, 4)


class Memory:
    """One buffer that all gradients lie in, so that nothing but themselves tells them apart."""

    def __init__(self) -> None:
        self.bytes = np.zeros(1 << 12, np.uint8)
        start = -self.bytes.__array_interface__["data"][0] % 64
        self.bytes = self.bytes[start : start + 2048]
        self.bytes[:] = np.random.default_rng(60).integers(
            0, 64, 2048
        )  # small numbers in any dtype

    def at(
        self, offset: int, dtype: str = "f4", shape: Any = SHAPE, strides: Any = None
    ) -> np.ndarray:
        return np.ndarray(shape, dtype, self.bytes.data, offset, strides)


def started() -> tuple[Any, Reference, Memory]:
    """An optimizer after a step with a gradient in the memory, and the reference of it."""
    memory = Memory()
    start = {"w": np.ones(SHAPE, np.float32)}
    optimizer = instep.SGD({"w": start["w"].copy()}, lr=0.5, clip_norm=1e30)
    reference = Reference("SGD", start, lr=0.5, clip_norm=1e30)
    for one in (optimizer, reference):
        one.step({"w": memory.at(0)})
    return optimizer, reference, memory


UNLIKE: list[tuple[str, Callable[[Memory], np.ndarray]]] = [
    ("the same", lambda m: m.at(0)),
    ("elsewhere", lambda m: m.at(256)),
    ("transposed", lambda m: m.at(0, strides=(4, 12))),
    ("every other", lambda m: m.at(0, strides=(32, 8))),
    ("backwards", lambda m: m.at(64, strides=(-16, -4))),
    ("broadcast", lambda m: m.at(0, strides=(0, 4))),
    ("another dtype", lambda m: m.at(0, "f2", strides=(16, 4))),
    ("float64", lambda m: m.at(0, "f8")),
]


@pytest.mark.parametrize("unlike", [u for _, u in UNLIKE], ids=[name for name, _ in UNLIKE])
def test_is_read_as_it_lies(unlike: Any) -> None:
    optimizer, reference, memory = started()
    for gradient in (unlike(memory), memory.at(128), unlike(memory)):
        for one in (optimizer, reference):
            one.step({"w": gradient})
        assert_same_bits(optimizer.params["w"], reference.params["w"])
        assert optimizer.grad_norm == reference.grad_norm


WRONG: list[tuple[str, Callable[[Memory], np.ndarray], str]] = [
    ("shape", lambda m: m.at(0, shape=(4, 4)), r"must have shape \(3, 4\), got \(4, 4\)"),
    (
        "last axis",
        lambda m: m.at(0, shape=(3, 3), strides=(16, 4)),
        r"must have shape \(3, 4\), got \(3, 3\)",
    ),
    (
        "dimensions",
        lambda m: m.at(0, shape=(3, 4, 1), strides=(16, 4, 4)),
        r"must have shape \(3, 4\), got \(3, 4, 1\)",
    ),
    ("misaligned", lambda m: m.at(1), "is misaligned"),
    ("byte-swapped", lambda m: m.at(0, ">f4"), "must be in the machine's byte order, got >f4"),
    ("integers", lambda m: m.at(0, "i4"), "must have dtype .*, got int32"),
]


@pytest.mark.parametrize(
    ("wrong", "message"), [w[1:] for w in WRONG], ids=[name for name, *_ in WRONG]
)
def test_is_refused_if_it_is_wrong(wrong: Any, message: str) -> None:
    optimizer, _, memory = started()
    before = optimizer.params["w"].copy()
    with pytest.raises((TypeError, ValueError), match=message):
        optimizer.step({"w": wrong(memory)})
    assert_same_bits(optimizer.params["w"], before)


def test_a_refused_gradient_leaves_no_trace() -> None:
    """One of another dtype that is refused as late as can be, for the memory it shares."""
    w = np.ones(8, np.float32)
    optimizer = instep.SGD(w, lr=0.5)
    gradient = np.arange(8, dtype=np.float32)
    optimizer.step(gradient)
    with pytest.raises(ValueError, match="shares memory with parameter '0'"):
        optimizer.step(w.view(np.float16)[::2])
    optimizer.step(gradient)
    assert w.tolist() == (1 - np.arange(8.0)).tolist()


class Moving(np.ndarray):
    """An array of a subclass whose code, run as it is looked at, shrinks another array."""

    other: np.ndarray

    def __getattr__(self, name: str) -> Any:
        if name == "mask":
            self.other.resize(1, refcheck=False)
        raise AttributeError(name)


@pytest.mark.parametrize("method", ["step", "accumulate"])
def test_a_gradient_that_moves_one_looked_at_before(method: str) -> None:
    params = [np.ones(4), np.ones(4)]
    optimizer = instep.SGD(params, lr=1.0)
    moving = np.ones(4).view(Moving)
    moving.other = np.ones(4)
    with pytest.raises(ValueError, match=r"gradient of '0' must have shape .*, got \(1,\)"):
        getattr(optimizer, method)([moving.other, moving])
    assert [p.tolist() for p in params] == [[1.0] * 4] * 2
    assert optimizer.step_count == 0
    assert not optimizer.accumulated


def test_a_gradient_between_others_of_the_optimizer() -> None:
    """Beside the last one, and where an array of the optimizer's begins."""
    memory = np.zeros(64, np.float32)
    w = memory[32:48]
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(memory[0:16])
    optimizer.step(memory[16:32])
    optimizer.step(memory[48:64])
    for start in (17, 31, 32, 40, 47):
        with pytest.raises(ValueError, match="shares memory with parameter '0'"):
            optimizer.step(memory[start : start + 16])
    optimizer.step(memory[16:32])
    assert optimizer.step_count == 4


def test_a_sum_waits_while_others_grow() -> None:
    """None in a later micro-batch adds nothing, whatever the gradient before was."""
    params = {"a": np.zeros(3), "b": np.zeros(3)}
    optimizer = instep.SGD(params, lr=1.0)
    optimizer.accumulate({"a": np.ones(3), "b": np.full(3, 2.0)})
    optimizer.accumulate({"a": np.ones(3), "b": None})
    optimizer.accumulate({"a": None, "b": np.full(3, 2.0)})
    optimizer.accumulate({"a": None, "b": None})
    assert optimizer.accumulated["a"].tolist() == [2.0] * 3
    assert optimizer.accumulated["b"].tolist() == [4.0] * 3
    optimizer.step()
    assert params["a"].tolist() == [-2.0] * 3
    assert params["b"].tolist() == [-4.0] * 3
