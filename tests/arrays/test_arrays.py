"""Containers, layouts, odd shapes, absent gradients: what parameters and gradients may look like."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, DTYPES, labels, numbers
from reference import Reference, assert_follows, assert_same_bits

import instep
from instep import _core

STEPS = 3


def as_c(a: np.ndarray) -> np.ndarray:
    return a.copy(order="C")


def as_fortran(a: np.ndarray) -> np.ndarray:
    return a.copy(order="F")


def every_second(a: np.ndarray) -> np.ndarray:
    wide = np.zeros(tuple(2 * n for n in a.shape), a.dtype)
    view = wide[tuple(slice(None, None, 2) for _ in a.shape)]
    view[...] = a
    return view


def reversed_axes(a: np.ndarray) -> np.ndarray:
    back = (slice(None, None, -1),) * a.ndim
    return a[back].copy()[back]


def middle_axis_first(a: np.ndarray) -> np.ndarray:
    order = [a.ndim // 2, *(k for k in range(a.ndim) if k != a.ndim // 2)]
    return a.transpose(order).copy().transpose(np.argsort(order))


def inner_slice(a: np.ndarray) -> np.ndarray:
    wide = np.zeros((*a.shape[:-1], a.shape[-1] + 3), a.dtype)
    wide[..., 1:-2] = a
    return wide[..., 1:-2]


LAYOUTS: list[Callable[[np.ndarray], np.ndarray]] = [
    as_c,
    as_fortran,
    every_second,
    reversed_axes,
    middle_axis_first,
    inner_slice,
]
SHAPES = [
    (7,),
    (1,),
    (3, 5),
    (1, 9),
    (9, 1),
    (4, 1, 6),
    (2, 3, 4, 5),
    (40, 33),
    (5, 0, 3),
    (700, 41),
]


def surroundings(view: np.ndarray) -> np.ndarray:
    """The whole buffer behind a view, as bytes."""
    whole = view if view.base is None else view.base
    return (
        np.asarray(whole).view(np.uint8)
        if whole.flags.c_contiguous
        else whole.copy().view(np.uint8)
    )


@pytest.mark.parametrize("clip_norm", [None, 0.5])
@pytest.mark.parametrize("dtype", [np.dtype("float64"), np.dtype("float32"), BFLOAT16], ids=labels)
@pytest.mark.parametrize(
    ("p_layout", "g_layout"), list(itertools.product(LAYOUTS, LAYOUTS)), ids=lambda f: f.__name__
)
def test_layouts(p_layout: Any, g_layout: Any, dtype: Any, clip_norm: float | None) -> None:
    """Any strides on either side; the bits, those of the norm too, depend on values and shapes alone."""
    rng = np.random.default_rng(2)
    start = {str(shape): numbers(rng, shape, dtype) for shape in SHAPES}
    params = {name: p_layout(p) for name, p in start.items()}
    optimizer = instep.AdamW(params, lr=0.03, clip_norm=clip_norm, l1=0.01, amsgrad=True)
    reference = Reference("AdamW", start, lr=0.03, clip_norm=clip_norm, l1=0.01, amsgrad=True)
    for _ in range(STEPS):
        grads = {name: numbers(rng, p.shape, dtype) for name, p in start.items()}
        optimizer.step({name: g_layout(g) for name, g in grads.items()})
        reference.step(grads)
        assert optimizer.grad_norm == reference.grad_norm
    assert_follows(optimizer, params, reference)


def test_gaps_between_elements_are_not_touched() -> None:
    buffer = np.full((6, 10), 7.0)
    view = buffer[1:5:2, 2:8:3]
    optimizer = instep.Adam(view, lr=0.5)
    optimizer.step(np.ones(view.shape))
    changed = buffer != 7.0
    assert changed.sum() == view.size
    assert changed[1:5:2, 2:8:3].all()


def test_a_gradient_may_be_broadcast_and_read_only() -> None:
    w = np.zeros((3, 4), "f4")
    instep.SGD(w, lr=1.0).step(np.broadcast_to(np.arange(4.0), (3, 4)))
    assert_same_bits(w, 0 - np.tile(np.arange(4, dtype="f4"), (3, 1)))


def test_large_transposed_gradient_over_threads(eager_threads: None) -> None:
    instep.set_num_threads(3)
    rng = np.random.default_rng(3)
    p, g = numbers(rng, (301, 257), "f4"), numbers(rng, (257, 301), "f4").T
    reference = Reference("Adam", {"0": p}, clip_norm=1.0)
    optimizer = instep.Adam(p, clip_norm=1.0)
    for _ in range(STEPS):
        optimizer.step(g)
        reference.step({"0": g})
    assert_same_bits(p, reference.params["0"])


@pytest.mark.parametrize("dtype", DTYPES, ids=labels)
def test_zero_dimensional(dtype: Any) -> None:
    p = np.array(1.5, dtype)
    reference = Reference("Adam", {"0": p})
    optimizer = instep.Adam(p)
    for grad in (np.array(2.0, dtype), np.array(0.5), np.float32(0.25), np.float64(-1.0), 0.75):
        optimizer.step(grad)
        reference.step({"0": np.asarray(grad)})
    assert_same_bits(p, reference.params["0"])


def test_empty_arrays_count_their_steps() -> None:
    optimizer = instep.Adam([np.zeros((0, 3)), np.zeros(0)], clip_norm=1.0)
    optimizer.step([np.zeros((0, 3)), np.zeros(0)])
    assert optimizer.step_count == 1
    assert optimizer._plan.steps == [1, 1]
    assert optimizer.grad_norm == 0.0


def test_containers() -> None:
    """One array, list, tuple, dict and groups all take the same steps, and gradients may come as either sequence."""
    rng = np.random.default_rng(4)
    start = [numbers(rng, (3, 2), "f4"), numbers(rng, 5, "f4")]
    grads = [[numbers(rng, p.shape, "f4") for p in start] for _ in range(STEPS)]

    def run(wrap: Any, wrap_grads: Any) -> list[np.ndarray]:
        params = [p.copy() for p in start]
        optimizer = instep.AdamW(wrap(params))
        for grad in grads:
            optimizer.step(wrap_grads(grad))
        return params

    def names(values: Any) -> dict[str, Any]:
        return dict(zip(("a", "b"), values, strict=True))

    results = [
        run(list, list),
        run(tuple, list),
        run(list, tuple),
        run(names, names),
        run(names, lambda g: dict(reversed(names(g).items()))),
        run(lambda p: MappingProxyType(names(p)), lambda g: MappingProxyType(names(g))),
        run(lambda p: [{"params": p}], lambda g: [g]),
        run(lambda p: [{"params": p[0]}, {"params": {"b": p[1]}}], lambda g: (g[0], {"b": g[1]})),
    ]
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert_same_bits(a, b)
    single = start[0].copy()
    optimizer = instep.AdamW(single)
    for grad in grads:
        optimizer.step(grad[0])
    assert_same_bits(single, results[0][0])


def test_names() -> None:
    a, b, c = np.zeros(1), np.zeros(2), np.zeros(3)
    assert list(instep.SGD(a).params) == ["0"]
    assert list(instep.SGD([a, b]).params) == ["0", "1"]
    assert list(instep.SGD({"w": a, "b": b}).params) == ["w", "b"]
    groups = instep.Adam([{"params": [a, b]}, {"params": c, "lr": 0.5}])
    assert list(groups.params) == ["0", "1", "2"]
    assert groups.params["2"] is c
    assert list(groups.state) == ["0", "1", "2"]
    assert groups.param_groups[1]["lr"] == 0.5
    assert groups.param_groups[0]["lr"] == 1e-3


def test_groups_have_their_own_hyperparameters() -> None:
    rng = np.random.default_rng(5)
    start = {name: numbers(rng, 9, "f4") for name in "ab"}
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.Adam(
        [
            {"params": {"a": params["a"]}, "lr": 0.5, "amsgrad": True},
            {
                "params": {"b": params["b"]},
                "betas": (0.5, lambda t: 0.5 + 0.1 * t),
                "maximize": True,
            },
        ],
        lr=lambda t: 0.1 / (1 + t),
    )
    first = Reference("Adam", {"a": start["a"]}, lr=0.5, amsgrad=True)
    second = Reference(
        "Adam",
        {"b": start["b"]},
        lr=lambda t: 0.1 / (1 + t),
        betas=(0.5, lambda t: 0.5 + 0.1 * t),
        maximize=True,
    )
    for _ in range(STEPS):
        grads = {name: numbers(rng, 9, "f4") for name in "ab"}
        optimizer.step([{"a": grads["a"]}, {"b": grads["b"]}])
        first.step({"a": grads["a"]})
        second.step({"b": grads["b"]})
    assert_same_bits(params["a"], first.params["a"])
    assert_same_bits(params["b"], second.params["b"])
    assert sorted(optimizer.state["a"]) == ["exp_avg", "exp_avg_sq", "max_exp_avg_sq"]
    assert sorted(optimizer.state["b"]) == ["exp_avg", "exp_avg_sq"]


@pytest.mark.parametrize("clip_norm", [None, 0.7])
def test_absent_gradients(clip_norm: float | None) -> None:
    """None leaves a parameter, its state and its step count alone, and out of the norm."""
    rng = np.random.default_rng(6)
    start = {name: numbers(rng, 40_000 if name == "b" else 5, "f4") for name in "abc"}
    params = {name: p.copy() for name, p in start.items()}
    optimizer = instep.SGD(params, momentum=0.9, dampening=0.5, clip_norm=clip_norm)
    reference = Reference("SGD", start, momentum=0.9, dampening=0.5, clip_norm=clip_norm)
    for absent in ("b", "ab", "c", "abc", ""):
        grads = {n: None if n in absent else numbers(rng, p.shape, "f4") for n, p in start.items()}
        optimizer.step(grads)
        reference.step(grads)
        assert optimizer.grad_norm == reference.grad_norm
    assert optimizer._plan.steps == list(reference.steps.values()) == [3, 2, 3]
    assert optimizer.step_count == 5
    assert_follows(optimizer, params, reference)


def test_float64_gradient_of_a_float32_parameter_is_rounded_once() -> None:
    w = np.zeros(1, "f4")
    value = 1 + 2**-24 + 2**-40  # just above a tie: up, were it rounded once
    instep.SGD(w, lr=1.0).step(np.array([value]))
    assert w[0] == -np.float32(value) != -1.0


def test_memory_mapped_parameters(tmp_path: Any) -> None:
    path = tmp_path / "weights.bin"
    mapped = np.memmap(path, "f4", "w+", shape=(100,))
    mapped[:] = 1.0
    instep.SGD(mapped, lr=0.5).step(np.ones(100))
    mapped.flush()
    assert (np.fromfile(path, "f4") == 0.5).all()


def test_states_have_the_layout_and_type_of_their_parameter() -> None:
    p = np.zeros((4, 5, 6), "f4").transpose(2, 0, 1)
    state = instep.Adam({"w": p}).state["w"]["exp_avg"]
    assert state.strides == p.strides
    assert state.dtype == np.float32
    assert state.ctypes.data % 64 == 0
    backwards = np.zeros((4, 5))[::-1, ::-1]
    assert instep.Adam(backwards).state["0"]["exp_avg"].flags.c_contiguous
    assert instep.Adam(np.zeros(3, "f2")).state["0"]["exp_avg"].dtype == np.float32
    assert instep.Adam(np.zeros(3, BFLOAT16)).state["0"]["exp_avg"].dtype == np.float32
    assert instep.Adam(np.zeros(3)).state["0"]["exp_avg"].dtype == np.float64
    assert instep.Adam(np.zeros(3), state_dtype="bfloat16").state["0"]["exp_avg"].dtype == BFLOAT16


def test_the_same_dtype_from_another_object_is_known() -> None:
    p = np.zeros(3, np.dtype("f4", metadata={"unit": "m"}))
    instep.SGD(p, lr=1.0).step(np.ones(3, np.dtype("f4", metadata={"unit": "m"})))
    assert (p == -1).all()


def test_counters_are_python_numbers() -> None:
    assert set(_core.testing.counters()) == {"parallel_regions"}


def test_large_states_begin_elsewhere_in_their_pages() -> None:
    """A core takes loads for what it has just stored to the same place in another page."""
    p = np.zeros(100_000, "f4")
    optimizer = instep.Adam(p, amsgrad=True, ema_decay=0.9)
    optimizer.accumulate(p.copy())
    own = [*optimizer.state["0"].values(), optimizer.averages["0"], optimizer.accumulated["0"]]
    places = [array.ctypes.data % 4096 for array in own]
    assert len(set(places)) == len(own)
    assert all(place % 64 == 0 for place in places)


def test_the_states_of_small_parameters_lie_side_by_side() -> None:
    """A line of cache apart at most: over many of them a step goes through one stream a state."""
    params = [np.zeros(n, dtype) for n, dtype in ((100, "f4"), (7, "f8"), (16, "f2"))]
    optimizer = instep.Adam(params, ema_decay=0.9)
    for arrays in (
        [states["exp_avg"] for states in optimizer.state.values()],
        [states["exp_avg_sq"] for states in optimizer.state.values()],
        list(optimizer.averages.values()),
    ):
        starts = [array.ctypes.data for array in arrays]
        assert all(start % 64 == 0 for start in starts)
        assert [start - starts[0] for start in starts] == [0, 448, 512]
        assert [array.dtype for array in arrays] == ["f4", "f8", "f4"]
