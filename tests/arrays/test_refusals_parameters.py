"""Parameters that can't be updated in place, from the start or later, are refused, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, misaligned
from snapshots import snapshot

import instep


def read_only() -> np.ndarray:
    a = np.zeros(4)
    a.flags.writeable = False
    return a


BAD_PARAMS: list[tuple[str, Any, type[Exception], str]] = [
    (
        "read-only",
        read_only(),
        ValueError,
        r"parameter '0' must be writeable, .*, got an array that is read-only; pass array.copy\(\), and use",
    ),
    ("memory-mapped", np.broadcast_to(np.float64(0), (1,)), ValueError, "read-only"),
    (
        "misaligned",
        misaligned(),
        ValueError,
        r"parameter '0' must have elements .*, got an array that is misaligned",
    ),
    (
        "byte-swapped",
        np.zeros(4, ">f4"),
        TypeError,
        r"parameter '0' must be in the machine's byte order, got >f4",
    ),
    (
        "integer",
        np.zeros(4, int),
        TypeError,
        r"parameter '0' must have dtype float64, float32, float16 or .*, got int64",
    ),
    (
        "complex",
        np.zeros(4, complex),
        TypeError,
        r"parameter '0' must have dtype .*, got complex128",
    ),
    ("object", np.zeros(4, object), TypeError, r"parameter '0' must have dtype .*, got object"),
    (
        "long double",
        np.zeros(4, np.longdouble),
        TypeError,
        r"parameter '0' must have dtype .*, got (longdouble|float128)",
    ),
    ("bool", np.zeros(4, bool), TypeError, r"parameter '0' must have dtype .*, got bool"),
    ("structured", np.zeros(4, [("a", "f4")]), TypeError, r"parameter '0' must have dtype .*, got"),
    ("masked", np.ma.zeros(4), TypeError, r"parameter '0' must be .*NumPy array.*, got a .*Masked"),
    (
        "zero strides",
        np.lib.stride_tricks.as_strided(np.zeros(4), (4, 4), (0, 8)),
        ValueError,
        "overlaps itself",
    ),
    (
        "sliding",
        np.lib.stride_tricks.as_strided(np.zeros(9), (4, 4), (8, 8)),
        ValueError,
        "overlaps itself",
    ),
    (
        "half over",
        np.lib.stride_tricks.as_strided(np.zeros(9, "f4"), (4,), (2,)),
        ValueError,
        "misaligned|overlaps",
    ),
    (
        "list of numbers",
        [1.0, 2.0],
        TypeError,
        r"parameter '0' must be a NumPy array, or a dict, list or tuple of arrays, got a float",
    ),
    (
        "group without its list",
        {"params": [np.zeros(1)], "lr": 0.1},
        TypeError,
        r"params must be a list of groups, got a group's dict with 'lr' beside 'params'; pass ",
    ),
    ("number", 1.0, TypeError, r"params must be .*, got a float"),
    ("None", None, TypeError, r"params must be a NumPy array.*, got None"),
    ("set", {1.0}, TypeError, r"params must be .*, got a set"),
    (
        "generator",
        (np.zeros(1) for _ in range(2)),
        TypeError,
        r"params must be .*, got a generator",
    ),
    ("nothing", [], ValueError, "params must have at least one array, got none"),
    (
        "empty dict",
        {},
        ValueError,
        "params must have at least one array, got none",
    ),
    (
        "empty group",
        [{"params": np.zeros(1)}, {"params": []}],
        ValueError,
        "params of group 1 must have at least one array, got none",
    ),
    (
        "key no str",
        {1.5: np.zeros(1)},
        TypeError,
        r"a key in params must be a str or an int, got 1\.5",
    ),
    (
        "key no Unicode",
        {"w\ud800": np.zeros(1)},
        ValueError,
        r"a key in params must be a text that UTF-8 can encode, got 'w\\ud800'",
    ),
    (
        "key no Unicode in a group",
        [{"params": {"w\ud800": np.zeros(1)}}],
        ValueError,
        "must be a text that UTF-8 can encode, got ",
    ),
    (
        "group without params",
        [{"lr": 1.0}],
        ValueError,
        "group 0 must be a dict with 'params' among its keys, got a dict with the keys 'lr'",
    ),
    (
        "group with another key",
        [{"params": np.zeros(1), "rate": 1.0}],
        TypeError,
        "a hyperparameter of a group of Adam must be one of .*, got 'rate'",
    ),
    ("group with clip_norm", [{"params": np.zeros(1), "clip_norm": 1.0}], TypeError, "'clip_norm'"),
    (
        "group with bad lr",
        [{"params": np.zeros(1), "lr": -1.0}],
        ValueError,
        "lr must be .*, got -1.0",
    ),
]


@pytest.mark.parametrize(
    ("params", "error", "message"), [c[1:] for c in BAD_PARAMS], ids=[c[0] for c in BAD_PARAMS]
)
def test_parameters(params: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        instep.Adam(params)
    assert "\n" not in str(caught.value)


def test_overlapping_parameters() -> None:
    base = np.zeros(10)
    for a, b in [
        (base, base),
        (base[:6], base[5:]),
        (base, base[::3]),
        (base.reshape(2, 5).T, base[9:]),
    ]:
        with pytest.raises(
            ValueError,
            match=r"'\d' must have memory of its own, got .* with parameter '\d'; for tied weights, pass",
        ):
            instep.SGD([a, b])
    instep.SGD([base[:5], base[5:]])
    instep.SGD([base[::2], base[1::2]])
    matrix = np.zeros((4, 6))
    instep.SGD([matrix[:, :3], matrix[:, 3:]])
    instep.SGD([base[:0], base])


def test_a_parameter_changed_behind_the_optimizers_back() -> None:
    w = np.zeros((2, 3))
    optimizer = instep.Adam({"w": w})
    with pytest.raises(ValueError, match="cannot resize"):
        w.resize((4, 3), refcheck=False)  # the memory would be freed under the optimizer
    w.flags.writeable = False
    before = snapshot(optimizer)
    with pytest.raises(ValueError, match=r"parameter 'w' must .*, got .* has been made read-only"):
        optimizer.step({"w": np.ones((2, 3))})
    assert snapshot(optimizer) == before
    w.flags.writeable = True
    optimizer.step({"w": np.ones((2, 3))})


def test_interleaved_axes_that_share_no_element_are_fine() -> None:
    base = np.zeros(8)
    woven = np.lib.stride_tricks.as_strided(base, (3, 2), (16, 24))
    instep.SGD(woven, lr=1.0).step(np.ones((3, 2)))
    assert base.tolist() == [-1, 0, -1, -1, -1, -1, 0, -1]


def _other_shape_and_strides(w: np.ndarray) -> None:
    w.shape = (3, 2)


def _other_strides(w: np.ndarray) -> None:
    w.strides = (8, 16)


def _other_shape(w: np.ndarray) -> None:
    w.shape = (3, 2)
    w.strides = (24, 8)


def _other_memory(w: np.ndarray) -> None:
    state: Any = (1, w.shape, w.dtype, False, bytes(w.nbytes))
    w.__setstate__(state)


@pytest.mark.filterwarnings("ignore:Setting the s:DeprecationWarning")
@pytest.mark.parametrize(
    "change",
    [_other_shape_and_strides, _other_strides, _other_shape, _other_memory],
    ids=lambda f: f.__name__,
)
def test_a_parameter_that_lies_otherwise(change: Callable[[np.ndarray], None]) -> None:
    base = np.zeros((3, 3))
    w = base[:2]
    optimizer = instep.SGD({"w": w})
    change(w)
    with pytest.raises(
        ValueError, match=r"parameter 'w' must .*, got .* has been reshaped or moved"
    ):
        optimizer.step({"w": np.ones((2, 3))})
    assert not base.any()
    assert not w.any()


@pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")
@pytest.mark.parametrize(
    ("dtype", "other"), [("f4", "i4"), ("f4", ">f4"), ("f2", BFLOAT16), (BFLOAT16, "f2")], ids=str
)
def test_a_parameter_of_another_dtype(dtype: Any, other: Any) -> None:
    w = np.ones(4, dtype)
    own = w.dtype
    optimizer = instep.SGD({"w": w})
    w.dtype = other
    with pytest.raises(
        ValueError, match=r"parameter 'w' must .*, got .* has been given another dtype"
    ):
        optimizer.step({"w": np.ones(4)})
    w.dtype = np.dtype(own.str if own.kind == "f" else own, copy=True)
    optimizer.step({"w": np.ones(4)})
    assert optimizer.step_count == 1


@pytest.mark.filterwarnings("ignore:Setting the dtype:DeprecationWarning")
def test_a_copy_of_another_dtype() -> None:
    copied = np.ones(4, "f2")
    optimizer = instep.SGD(np.ones(4), copy_to=copied)
    copied.dtype = "i2"
    with pytest.raises(
        ValueError, match=r"the copy of '0' must .*, got .* has been given another dtype"
    ):
        optimizer.step(np.ones(4))


def test_parameters_outlive_their_names() -> None:
    optimizer = instep.SGD({"w": np.zeros(1000)}, lr=1.0)
    optimizer.step({"w": np.ones(1000)})  # the only references are the optimizer's
    assert (optimizer.params["w"] == -1).all()
