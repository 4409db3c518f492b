"""Gradients that can't be taken as they are: one clear error, and nothing has changed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import misaligned
from snapshots import snapshot

import instep


def make_optimizer() -> Any:
    rng = np.random.default_rng(0)
    params = {"w": rng.standard_normal((3, 4)).astype("f4"), "b": rng.standard_normal(4)}
    optimizer = instep.AdamW(params, amsgrad=True, clip_norm=10.0)
    optimizer.step({"w": np.ones((3, 4)), "b": np.ones(4)})
    return optimizer


def good() -> np.ndarray:
    return np.ones(4)


W = np.ones((3, 4))


BAD_GRADS: list[tuple[str, Callable[[Any], Any], type[Exception], str]] = [
    ("list", lambda o: [W, good()], TypeError, "the gradients must be a dict.*, got a list"),
    ("array", lambda o: W, TypeError, "the gradients must be a dict.*, got an ndarray"),
    ("None", lambda o: None, TypeError, "the gradients must be .*, got None"),
    ("missing", lambda o: {"w": W}, ValueError, r"missing: 'b' \(None leaves"),
    ("too many", lambda o: {"w": W, "b": good(), "c": good()}, ValueError, "unknown: 'c'"),
    (
        "many other keys",
        lambda o: {f"x{k}": W for k in range(99)},
        ValueError,
        r"missing: 'w', 'b' \(None .*; unknown: 'x0', 'x1', 'x2' and 96 more \(add_param_group adds parameters\)$",
    ),
    ("other key", lambda o: {"w": W, "c": good()}, ValueError, r"missing: 'b'.*unknown: 'c'"),
    (
        "shape",
        lambda o: {"w": W.T, "b": good()},
        ValueError,
        r"gradient of 'w' must have shape \(3, 4\), got \(4, 3\)",
    ),
    (
        "last shape",
        lambda o: {"w": W, "b": np.ones(5)},
        ValueError,
        r"gradient of 'b' must have shape \(4,\), got \(5,\)",
    ),
    (
        "dimensions",
        lambda o: {"w": W, "b": np.ones((4, 1))},
        ValueError,
        r"gradient of 'b' must have shape .*, got \(4, 1\)",
    ),
    (
        "scalar",
        lambda o: {"w": W, "b": 1.0},
        TypeError,
        r"gradient of 'b' must be an array of shape \(4,\), got a float.*keepdims=True",
    ),
    (
        "integer",
        lambda o: {"w": W, "b": np.ones(4, int)},
        TypeError,
        "gradient of 'b' must have dtype .*, got int64",
    ),
    (
        "complex",
        lambda o: {"w": W, "b": np.ones(4, complex)},
        TypeError,
        "gradient of 'b' must have dtype .*, got complex128",
    ),
    (
        "object",
        lambda o: {"w": W, "b": np.ones(4, object)},
        TypeError,
        "gradient of 'b' must have dtype .*, got object",
    ),
    (
        "byte-swapped",
        lambda o: {"w": W, "b": np.ones(4, ">f8")},
        TypeError,
        "gradient of 'b' must be in the machine's byte order, got >f8",
    ),
    (
        "misaligned",
        lambda o: {"w": W, "b": misaligned(4, "f8")},
        ValueError,
        "gradient of 'b' must have elements .*, got an array that is misaligned",
    ),
    (
        "a list in it",
        lambda o: {"w": W, "b": [1.0] * 4},
        TypeError,
        "gradient of 'b' must be .*NumPy array.*, got a list",
    ),
    (
        "masked",
        lambda o: {"w": W, "b": np.ma.ones(4)},
        TypeError,
        "gradient of 'b' must be .*NumPy array.*, got a .*Masked",
    ),
    (
        "the parameter",
        lambda o: {"w": W, "b": o.params["b"]},
        ValueError,
        "'b' must have memory of its own, got .* shares memory with parameter 'b'",
    ),
    (
        "another's",
        lambda o: {"w": W, "b": o.params["w"][0]},
        ValueError,
        "'b' must have memory of its own, got .* shares memory with parameter 'w'",
    ),
    (
        "reversed",
        lambda o: {"w": W, "b": o.params["b"][::-1]},
        ValueError,
        "'b' must have memory of its own, got .* shares memory with parameter 'b'",
    ),
    (
        "state",
        lambda o: {"w": o.state["w"]["exp_avg"], "b": good()},
        ValueError,
        "gradient of 'w' must have memory of its own, got .* shares memory with state 'exp_avg' of 'w'",
    ),
]


@pytest.mark.parametrize(
    ("grads", "error", "message"), [c[1:] for c in BAD_GRADS], ids=[c[0] for c in BAD_GRADS]
)
def test_gradients(grads: Any, error: type[Exception], message: str) -> None:
    optimizer = make_optimizer()
    given = grads(optimizer)
    before = snapshot(optimizer)
    with pytest.raises(error, match=message) as caught:
        optimizer.step(given)
    assert "\n" not in str(caught.value)
    assert snapshot(optimizer) == before
    optimizer.step({"w": W, "b": good()})  # and it goes on


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        ({"0": W}, TypeError, "the gradients must be a list or tuple of 2.*, got a dict"),
        ([W], ValueError, "the gradients must have 2 entries, .*, got 1"),
        ([W, W, W], ValueError, "the gradients must have 2 entries, .*, got 3"),
        ((g for g in [W, W]), TypeError, "must be .*, got a generator"),
        (np.ones((2, 3, 4)), TypeError, "must be .*, got an ndarray"),
    ],
)
def test_sequences_of_gradients(grads: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.SGD([np.zeros((3, 4)), np.zeros((3, 4))])
    with pytest.raises(error, match=message):
        optimizer.step(grads)


@pytest.mark.parametrize(
    ("grads", "error", "message"),
    [
        (
            np.ones(1),
            TypeError,
            "the gradients must be a list .* for each parameter group, got an ndarray",
        ),
        ([np.ones(1)], ValueError, "must have 2 entries, one for each parameter group, got 1"),
        (
            [np.ones(1), [np.ones(1)], []],
            ValueError,
            "must have 2 entries, one for each parameter group, got 3",
        ),
        (
            [np.ones(1), np.ones(1)],
            TypeError,
            "the gradients of group 1 must be a list or tuple.*, got an ndarray",
        ),
        ([np.ones(2), [np.ones(1)]], ValueError, r"gradient of '0' must have shape .*, got \(2,\)"),
    ],
)
def test_gradients_of_groups(grads: Any, error: type[Exception], message: str) -> None:
    optimizer = instep.SGD([{"params": np.zeros(1)}, {"params": [np.zeros(1)]}])
    with pytest.raises(error, match=message):
        optimizer.step(grads)


def test_a_gradient_between_the_elements_of_a_parameter_is_fine() -> None:
    both = np.zeros(8)
    w, g = both[::2], both[1::2]
    g[:] = 1
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(g)
    assert both.tolist() == [-1, 1] * 4


def test_a_gradient_behind_a_parameter_that_lies_within_a_longer_one() -> None:
    """The one that begins last before the gradient is not the one that reaches farthest."""
    both = np.zeros(100)
    optimizer = instep.SGD([both[::2], both[1:10:2]])
    with pytest.raises(
        ValueError,
        match=r"gradient of '1' must have memory of its own, got .* shares memory with parameter '0'",
    ):
        optimizer.step([None, both[80:90:2]])
    optimizer.step([None, both[81:90:2]])


def test_a_reversed_gradient_reaches_down_into_the_parameter() -> None:
    both = np.zeros(6)
    optimizer = instep.SGD(both[:4])
    with pytest.raises(
        ValueError,
        match=r"gradient of '0' must have memory of its own, got .* shares memory with parameter '0'",
    ):
        optimizer.step(both[2:][::-1])


def test_dtype_objects_of_gradients_are_not_kept() -> None:
    """An unpickled array brings a dtype object of its own."""
    optimizer = instep.SGD(np.zeros(2), lr=1.0)
    dtypes = [np.dtype("f8", metadata={"k": k}) for k in range(50)]
    before = [sys.getrefcount(dtype) for dtype in dtypes]
    for dtype in dtypes:
        optimizer.step(np.ones(2, dtype))
    del dtype
    assert optimizer.params["0"].tolist() == [-50.0, -50.0]
    assert [sys.getrefcount(dtype) for dtype in dtypes] == before


def test_keys_that_leave_the_dict_as_they_are_hashed() -> None:
    """To say which keys are unknown runs their code."""
    gradients: dict[Any, Any] = {}
    gone: list[int] = []

    class Leaving:
        hashed = 0

        def __hash__(self) -> int:
            self.hashed += 1
            if self.hashed > 1:
                gradients.clear()
            return hash("w")

        def __eq__(self, other: object) -> bool:
            return False

        def __del__(self) -> None:
            gone.append(self.hashed)

    optimizer = instep.SGD({"w": np.ones(3)})
    for _ in range(20):
        gradients[Leaving()] = None
        gradients["b"] = None
        with pytest.raises(ValueError, match=r"missing: 'w'.*; unknown: <.*Leaving.*, 'b'"):
            optimizer.step(gradients)
    assert gone == [2] * 20
