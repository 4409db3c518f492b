"""Gradients that are no arrays: numbers, and what NumPy makes an array of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from snapshots import snapshot

import instep

NUMBERS = [3.0, 3, np.float64(3), np.float32(3), np.float16(3), np.int64(3), np.uint8(3), 3 + 2**60]


@pytest.mark.parametrize("gradient", NUMBERS, ids=lambda g: f"{type(g).__name__} {g}")
@pytest.mark.parametrize("dtype", ["f8", "f4"])
def test_a_number_is_a_gradient_of_a_0d_parameter(gradient: Any, dtype: str) -> None:
    w = np.array(1.0, dtype)
    opt = instep.SGD({"w": w}, lr=1.0)
    opt.accumulate({"w": gradient})
    opt.step({"w": gradient})
    assert w == w.dtype.type(1) - 2 * w.dtype.type(gradient)


class Foreign:
    """An array of another library, such as JAX: NumPy can read it."""

    def __init__(self, array: Any) -> None:
        self.array = array

    def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
        if isinstance(self.array, BaseException):
            raise self.array
        return self.array


def test_what_numpy_makes_an_array_of() -> None:
    w = {"a": np.zeros((3, 2)), "b": np.zeros(2, "f4")}
    opt = instep.SGD(w, lr=1.0)
    opt.accumulate({"a": Foreign(np.ones((3, 2))), "b": None})
    opt.step({"a": Foreign(np.ones((2, 3)).T), "b": Foreign(np.full(2, 0.5))})
    assert w["a"].tolist() == [[-2.0, -2.0]] * 3
    assert w["b"].tolist() == [-0.5, -0.5]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_arrays_of_jax(dtype: str) -> None:
    numpy_of_jax = pytest.importorskip("jax.numpy")
    w = np.zeros(3, "f4")
    opt = instep.SGD([w], lr=1.0)
    opt.step([numpy_of_jax.arange(3, dtype=dtype)])
    assert w.tolist() == [0.0, -1.0, -2.0]


def test_tensors_of_torch() -> None:
    torch = pytest.importorskip("torch")
    w = np.zeros(3)
    opt = instep.SGD([w], lr=1.0)
    opt.step([torch.arange(3, dtype=torch.float64)])
    assert w.tolist() == [0.0, -1.0, -2.0]
    with pytest.raises(TypeError, match=r"'0' must be an array, got a .*Tensor, .*detach\(\)"):
        opt.step([torch.ones(3, requires_grad=True)])


REFUSED: dict[str, tuple[Any, str]] = {
    "a number for one element": (
        2.0,
        r"'w' must be an array of shape \(1,\), got a float.*keepdims=True",
    ),
    "an int": (2, r"'w' must be an array of shape \(1,\), got an int.*keepdims=True"),
    "of NumPy": (
        np.float32(2),
        r"'w' must be an array of shape \(1,\), got a float32.*keepdims=True",
    ),
    "True": (True, "'w' must be a NumPy array, got a bool"),
    "another shape": (Foreign(np.zeros(2)), r"'w' must have shape \(1,\), got \(2,\)$"),
    "integers": (Foreign(np.zeros(1, int)), "'w' must have dtype float64, .*, got int64$"),
    "an object": (object(), "'w' must be a NumPy array, got an object$"),
    "lines": (
        Foreign(ValueError("a\nb" + "ä" * 300)),
        r"got a Foreign, of .*: a bä{90,100}\.\.\.$",
    ),
    "no array": (Foreign("text"), "'w' must be an array, got a Foreign"),
    "an error": (Foreign(ValueError("not now")), "'w' must be an array, got a Foreign.*not now"),
}


@pytest.mark.parametrize(("gradient", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(gradient: Any, message: str) -> None:
    opt = instep.Adam({"w": np.zeros(1)})
    before = snapshot(opt)
    for call in (opt.step, opt.accumulate):
        with pytest.raises((TypeError, ValueError), match=message) as caught:
            call({"w": gradient})
        assert "\n" not in str(caught.value)
        assert snapshot(opt) == before


@pytest.mark.parametrize("gradient", [True, np.bool_(1), 1j, 10**400, "1"], ids=str)
def test_no_number_for_a_0d_parameter(gradient: Any) -> None:
    opt = instep.Adam({"w": np.zeros(())})
    with pytest.raises(TypeError, match=r"gradient of 'w' must .*, got "):
        opt.step({"w": gradient})
    assert opt.step_count == 0


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, RecursionError])
def test_errors_that_are_not_the_arrays_come_through(error: Any) -> None:
    opt = instep.Adam({"w": np.zeros(1)})
    with pytest.raises(error):
        opt.step({"w": Foreign(error())})
    assert opt.step_count == 0


def test_an_array_that_moves_others_while_it_is_made() -> None:
    """All are made before any address is taken."""
    moved = np.ones(1000)
    w = [np.zeros(1000), np.zeros(1)]
    opt = instep.SGD(w, lr=1.0)
    opt.step([moved, np.ones(1)])

    class Mover(Foreign):
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            moved.resize(500_000, refcheck=False)
            moved.resize(1000, refcheck=False)
            moved[...] = 2.0
            return self.array

    opt.step([moved, Mover(np.ones(1))])
    assert set(w[0]) == {-3.0}


def test_ctrl_c_while_attributes_are_looked_up_comes_through() -> None:
    class Lazy:
        def __getattr__(self, name: str) -> Any:
            raise KeyboardInterrupt

    class Masked(np.ndarray):
        @property
        def mask(self) -> Any:
            raise KeyboardInterrupt

    opt = instep.Adam({"w": np.zeros(1)})
    for gradient in (Lazy(), np.zeros(1).view(Masked)):
        with pytest.raises(KeyboardInterrupt):
            opt.step({"w": gradient})
    assert opt.step_count == 0
