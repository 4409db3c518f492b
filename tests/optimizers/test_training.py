"""What a training loop asks for around the rule: accumulation, scaling, averages, copies, guards, groups."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, LEVELS, THREADS, numbers, use_level
from reference import Reference, assert_follows, assert_same_bits, store

import instep
from instep import _core

SHAPES = {"a": (3, 5), "b": (CHUNK + 7,), "c": (), "d": (171, 240), "e": (0,)}
DTYPES = {"a": "f4", "b": "f2", "c": "f8", "d": "f4", "e": "f4"}


def start(seed: int = 20) -> tuple[np.random.Generator, dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return rng, {name: numbers(rng, shape, DTYPES[name]) for name, shape in SHAPES.items()}


def gradients(rng: np.random.Generator, absent: str = "") -> dict[str, Any]:
    return {n: None if n in absent else numbers(rng, shape, "f4") for n, shape in SHAPES.items()}


def check(optimizer: Any, reference: Reference) -> None:
    assert_follows(optimizer, optimizer.params, reference)
    assert optimizer.grad_norm == reference.grad_norm
    assert optimizer._plan.steps == list(reference.steps.values())


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("clip_norm", [None, 5.0])
@pytest.mark.usefixtures("eager_threads")
def test_everything_at_once(clip_norm: float | None, threads: int, level: str) -> None:
    """Accumulation, scale, clipping, regularisation, averages and copies in one sweep."""
    use_level(level)
    instep.set_num_threads(threads)
    rng, first = start()
    params = {name: p.copy() for name, p in first.items()}
    copies = {n: np.full(p.shape, 9, BFLOAT16) if n != "b" else None for n, p in params.items()}
    settings: dict[str, Any] = {
        "lr": lambda t: 0.1 / (1 + t),
        "l1": 0.01,
        "clip_norm": clip_norm,
        "ema_decay": lambda t: 0.9 - 0.1 * t,
    }
    optimizer = instep.AdamW(params, copy_to=copies, **settings)
    reference = Reference("AdamW", first, copy_dtype=BFLOAT16, **settings)
    for step in range(4):
        for _ in range(step % 3):
            grads = gradients(rng, absent="a" if step == 2 else "")
            optimizer.accumulate(grads)
            reference.accumulate(grads)
        for name, values in reference.accumulated.items():
            assert_same_bits(optimizer.accumulated[name], values, f"accumulated {name}")
        if step == 2:
            optimizer.step(grad_scale=0.5)
            reference.step(None, 0.5)
        else:
            grads = gradients(rng, absent="c" if step == 1 else "")
            optimizer.step(grads, grad_scale=0.3)
            reference.step(grads, 0.3)
        assert optimizer.accumulated == {}
        check(optimizer, reference)
        for name, copy in copies.items():
            if copy is not None:
                assert_same_bits(copy, reference.copies[name], f"copy of {name}")


# ---- accumulation -----------------------------------------------------------------------------------


def test_nothing_accumulated() -> None:
    optimizer = instep.SGD(np.zeros(2))
    with pytest.raises(
        ValueError, match=r"step\(\) without gradients, and none have been accumulated"
    ):
        optimizer.step()
    optimizer.accumulate(np.ones(2))
    optimizer.discard_accumulated()
    with pytest.raises(ValueError, match="none have been accumulated"):
        optimizer.step()
    assert optimizer.step_count == 0


def test_a_refused_micro_batch_adds_nothing() -> None:
    optimizer = instep.SGD([np.zeros(2), np.zeros(3)], lr=1.0)
    optimizer.accumulate([np.ones(2), np.ones(3)])
    for bad in ([np.ones(2), np.ones(2)], [np.ones(2)], [np.ones(2), optimizer.params["1"]]):
        with pytest.raises(ValueError, match=r"shape|entries|shares memory"):
            optimizer.accumulate(bad)
    with pytest.raises(ValueError, match="shares memory with the accumulated gradient of '0'"):
        optimizer.step([optimizer.accumulated["0"], None])
    optimizer.step()
    assert optimizer.params["0"].tolist() == [-1.0, -1.0]
    assert optimizer.params["1"].tolist() == [-1.0, -1.0, -1.0]


def test_only_parameters_with_a_sum_are_stepped() -> None:
    optimizer = instep.Momentum([np.zeros(2), np.zeros(2)], lr=1.0)
    optimizer.accumulate([None, np.ones(2)])
    optimizer.step()
    assert optimizer._plan.steps == [0, 1]
    assert optimizer.params["0"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("scale", "error"),
    [
        (0.0, ValueError),
        (-1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("x", TypeError),
        (True, TypeError),
    ],
)
def test_bad_scales(scale: Any, error: type[Exception]) -> None:
    optimizer = instep.SGD(np.zeros(1))
    with pytest.raises(error, match="grad_scale is"):
        optimizer.step(np.ones(1), grad_scale=scale)
    assert optimizer.step_count == 0


# ---- averages ---------------------------------------------------------------------------------------


def test_averaged_swaps_in_and_out() -> None:
    rng, first = start()
    optimizer = instep.SGD(first, lr=1.0, ema_decay=0.5)
    optimizer.step(gradients(rng))
    before = {name: p.copy() for name, p in optimizer.params.items()}
    with optimizer.averaged():
        for name, p in optimizer.params.items():
            assert_same_bits(p, optimizer.averages[name].astype(p.dtype), name)
        with pytest.raises(RuntimeError, match="inside averaged"):
            optimizer.step(gradients(rng))
        with pytest.raises(RuntimeError, match="can't be nested"), optimizer.averaged():
            pass
    with pytest.raises(KeyError, match="from the body"), optimizer.averaged():
        raise KeyError("from the body")
    for name, p in optimizer.params.items():
        assert_same_bits(p, before[name], name)
    optimizer.step(gradients(rng))


def test_swapping_waits_for_a_step_on_another_thread() -> None:
    size = 20_000_000
    w = np.zeros(size, "f4")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.5)

    def step() -> None:
        with suppress(RuntimeError):  # refused, if it comes while the averages are in
            optimizer.step(np.ones(size, "f4"))

    thread = threading.Thread(target=step)
    thread.start()
    for _ in range(20):
        with optimizer.averaged():
            pass
        if not thread.is_alive():
            break
    thread.join()
    assert (w == -float(optimizer.step_count)).all()


def test_averages_too_large_for_their_parameter() -> None:
    """Rounded to infinity as in a step, without NumPy's warning, which may be an error, half-way."""
    w = np.zeros(2, "f2")
    optimizer = instep.SGD(w, lr=1.0, ema_decay=0.25)
    optimizer.step(np.array([-1e5, 1.0]))
    assert w.tolist() == [math.inf, -1.0]
    with np.errstate(all="raise"), optimizer.averaged():
        assert w.tolist() == [math.inf, -0.75]
    assert w.tolist() == [math.inf, -1.0]
    optimizer.step(np.zeros(2))


CHANGES: list[tuple[str, Callable[[np.ndarray], Any], Callable[[np.ndarray], Any]]] = [
    ("read-only", lambda w: w.setflags(write=False), lambda w: w.setflags(write=True)),
    ("shape", lambda w: setattr(w, "shape", (2, 3, 1)), lambda w: setattr(w, "shape", (2, 3))),
    ("dtype", lambda w: setattr(w, "dtype", "i4"), lambda w: setattr(w, "dtype", "f4")),
]


@pytest.mark.filterwarnings("ignore:Setting the:DeprecationWarning")
@pytest.mark.parametrize(("change", "undo"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES])
def test_the_weights_come_back_to_a_changed_array(change: Any, undo: Any) -> None:
    params = [np.zeros(4, "f4"), np.zeros((2, 6), "f4")[:, ::2], np.zeros(4, "f4")]
    optimizer = instep.SGD(params, lr=1.0, ema_decay=0.75)
    grads = [np.full(p.shape, -4.0) for p in params]
    optimizer.step(grads)
    with optimizer.averaged():
        assert [p.ravel()[0] for p in params] == [1.0] * 3
        change(params[1])
    undo(params[1])
    assert all((p == 4.0).all() for p in params)
    optimizer.step(grads)
    assert all((p == 8.0).all() for p in params)


def test_the_weights_of_an_array_of_other_memory_are_lost_but_no_others() -> None:
    params = [np.zeros(4), np.zeros(4), np.zeros(4)]
    optimizer = instep.SGD(params, lr=1.0, ema_decay=0.75)
    optimizer.step([np.full(4, -4.0)] * 3)
    with (
        pytest.raises(ValueError, match="parameter '1' has been resized or moved in memory inside"),
        optimizer.averaged(),
    ):
        params[1].__setstate__((1, (1,), params[1].dtype, False, bytes(8)))
    assert (params[0] == 4.0).all()
    assert (params[2] == 4.0).all()
    with (
        pytest.raises(ValueError, match="parameter '1' has been reshaped or moved in memory since"),
        optimizer.averaged(),
    ):
        pass


def test_without_averages() -> None:
    optimizer = instep.SGD(np.zeros(1))
    assert optimizer.averages == {}
    with pytest.raises(ValueError, match="there are no averages"), optimizer.averaged():
        pass
    for bad in (1.0, -0.1, math.nan):
        with pytest.raises(ValueError, match=r"ema_decay is .*\[0, 1\)"):
            instep.SGD(np.zeros(1), ema_decay=bad)


def test_averages_start_at_the_weights() -> None:
    w = np.array([1.5, -2.0], BFLOAT16)
    averages = instep.Adam({"w": w}, ema_decay=0.9).averages
    assert averages["w"].dtype == np.float32
    assert averages["w"].tolist() == [1.5, -2.0]


def test_averages_of_special_values() -> None:
    """The average of -0 becomes +0, which e - rate * (e - p) would not give."""
    first = np.array([0.0, -0.0, math.inf, -math.inf, math.nan, 1.0, 5e-324])
    w = first.copy()
    optimizer = instep.SGD(w, ema_decay=0.5)
    reference = Reference("SGD", {"0": first}, ema_decay=0.5)
    optimizer.step(np.zeros(w.size))
    reference.step({"0": np.zeros(w.size)})
    check(optimizer, reference)
    assert np.signbit(w[1])
    assert not np.signbit(optimizer.averages["0"][1])


# ---- copies -----------------------------------------------------------------------------------------


def test_copies_may_have_gaps_and_another_layout() -> None:
    rng = np.random.default_rng(21)
    w = numbers(rng, (40, 30), "f4")
    whole = np.full((60, 80), 7, "f2")
    copy = whole[::2, ::2].T
    optimizer = instep.Adam(w, lr=0.1, copy_to=copy)
    assert_same_bits(copy, w.astype("f2"))
    optimizer.step(numbers(rng, (40, 30), "f4"))
    assert_same_bits(copy, w.astype("f2"))
    assert (whole[1::2] == 7).all()
    assert (whole[:, 1::2] == 7).all()


@pytest.mark.parametrize("how", ["state_dict", "checkpoint"])
def test_copies_hold_what_was_loaded(how: str, tmp_path: Path) -> None:
    w = np.array([1 + 2**-8 + 2**-30, 3.0])  # rounding it by way of float32 gives another bfloat16
    saved = instep.SGD({"w": w})
    copy = np.zeros(2, BFLOAT16)
    loaded = instep.SGD({"w": np.zeros(2)}, copy_to={"w": copy})
    if how == "state_dict":
        loaded.params["w"][...] = w
        loaded.load_state_dict(saved.state_dict())
    else:
        pytest.importorskip("safetensors")
        instep.checkpoint.save(tmp_path / "run", saved)
        instep.checkpoint.load(tmp_path / "run", loaded)
    assert_same_bits(copy, store(w, BFLOAT16))


@pytest.mark.parametrize("dtype", ["f2", BFLOAT16], ids=str)
def test_a_copy_follows_a_change_by_hand_at_the_next_step(dtype: Any) -> None:
    w, copy = np.full(3, 0.1, "f4"), np.zeros(3, dtype)
    optimizer = instep.SGD(w, lr=0.1, copy_to=copy)
    old = copy.copy()
    w[...] = 0.7
    assert_same_bits(copy, old)
    copy[...] = w
    assert_same_bits(copy, store(w, dtype))
    w[...] = 0.3
    optimizer.step(np.zeros(3))
    assert_same_bits(copy, store(w, dtype))


def test_a_step_of_nothing_but_none_counts() -> None:
    w = np.ones(2)
    for params, none in ((w, None), ([w], [None]), ({"w": w}, {"w": None})):
        optimizer = instep.Adam(params, lr=lambda step: 0.1)
        optimizer.step(none)
        assert optimizer.step_count == 1
        assert set(optimizer.state_dict()["steps"].values()) == {0}
    assert w.tolist() == [1.0, 1.0]


W, C = np.zeros((2, 2)), np.zeros((2, 2), "f2")
READ_ONLY = np.broadcast_to(np.float16(0), (2, 2))
BAD_COPIES: list[tuple[Any, Any, type[Exception], str]] = [
    (
        W,
        C[0],
        ValueError,
        r"the copy of '0' has shape \(2,\); the parameter's, \(2, 2\), is wanted",
    ),
    (W, READ_ONLY, ValueError, "the copy of '0' is read-only"),
    (
        W,
        C.astype("f8"),
        TypeError,
        "dtype float64; one narrower than the parameter's float64 is wanted",
    ),
    (W, C.astype("i4"), TypeError, "the copy of '0' has dtype int32"),
    (W, [C], TypeError, "the copy of '0' is a list"),
    ([W], 1, ValueError, "copy_to is an int; a list or tuple of 1 is wanted"),
    ([W], C, ValueError, "copy_to is an ndarray; a list or tuple of 1 is wanted"),
    ([W], [C, C], ValueError, "copy_to is a list of 2; a list or tuple of 1"),
    (
        {"w": W},
        {"v": C},
        ValueError,
        r"copy_to must have the parameters' keys \(None.*; missing: 'w'; unknown: 'v'$",
    ),
    ({"w": W}, [C], ValueError, "copy_to is a list; a dict with the parameters' keys is wanted"),
    (
        [{"params": W}],
        C,
        ValueError,
        "copy_to is an ndarray; a list with an entry for each of the 1 parameter groups",
    ),
    (
        [W, W.copy()],
        [C, C],
        ValueError,
        "the copy of '1' shares memory with the copy of '0'|'0' shares memory",
    ),
]


@pytest.mark.parametrize(("params", "copies", "error", "message"), BAD_COPIES)
def test_bad_copies(params: Any, copies: Any, error: type[Exception], message: str) -> None:
    before = C.tobytes()
    with pytest.raises(error, match=message):
        instep.SGD(params, copy_to=copies)
    assert C.tobytes() == before


def test_a_gradient_in_a_copy() -> None:
    copy = np.zeros(3, "f2")
    optimizer = instep.SGD(np.zeros(3, "f4"), copy_to=copy)
    with pytest.raises(ValueError, match="shares memory with the copy of '0'"):
        optimizer.step(copy)
    copy.flags.writeable = False
    with pytest.raises(ValueError, match="the copy of '0' has been made read-only"):
        optimizer.step(np.ones(3))


# ---- guards -----------------------------------------------------------------------------------------


def everything(optimizer: Any) -> Any:
    return (
        {n: p.tobytes() for n, p in optimizer.params.items()},
        {n: {k: s.tobytes() for k, s in states.items()} for n, states in optimizer.state.items()},
        {n: a.tobytes() for n, a in optimizer.averages.items()},
        optimizer.step_count,
        optimizer._plan.steps,
    )


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [("a", (1, 2)), ("b", CHUNK + 6), ("c", ()), ("d", (170, 239))])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("accumulated", [False, True])
@pytest.mark.usefixtures("eager_threads")
def test_guards(bad: float, where: tuple[str, Any], threads: int, accumulated: bool) -> None:
    instep.set_num_threads(threads)
    for policy in ("skip", "raise"):
        rng, first = start()
        optimizer = instep.AdamW(first, nonfinite=policy, ema_decay=0.9)
        optimizer.step(gradients(rng))
        before = everything(optimizer)
        spoilt = gradients(rng)
        spoilt[where[0]][where[1]] = bad
        if accumulated:
            optimizer.accumulate(spoilt)
            spoilt = gradients(rng)
        if policy == "skip":
            optimizer.step(spoilt)
            assert optimizer.skipped_steps == 1
            assert optimizer.accumulated == {}
        else:
            with pytest.raises(
                FloatingPointError, match=f"gradient of '{where[0]}' is not finite everywhere"
            ):
                optimizer.step(spoilt)
            assert optimizer.skipped_steps == 0
            assert bool(optimizer.accumulated) == accumulated
            optimizer.discard_accumulated()
        assert everything(optimizer) == before
        optimizer.step(gradients(rng))
        assert optimizer.step_count == 2


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_a_guard_changes_no_bit_of_a_good_step(policy: str) -> None:
    rng, first = start()
    params = {name: p.copy() for name, p in first.items()}
    optimizer = instep.Adam(params, nonfinite=policy)
    reference = Reference("Adam", first, clip_norm=math.inf)  # which computes the norm too
    for _ in range(3):
        grads = gradients(rng)
        optimizer.step(grads)
        reference.step(grads)
    check(optimizer, reference)


def test_a_sum_of_squares_that_overflows_is_no_infinite_gradient() -> None:
    w = np.zeros(2)
    optimizer = instep.SGD(w, lr=1.0, nonfinite="raise")
    optimizer.step(np.array([1e200, 1.0]))
    assert w.tolist() == [-1e200, -1.0]
    assert optimizer.grad_norm == 1e200


def test_a_gradient_that_is_absent_is_not_blamed() -> None:
    optimizer = instep.SGD({"a": np.zeros(2), "b": np.zeros(2)}, nonfinite="raise")
    bad = np.array([1.0, math.nan])
    for grads, name in (({"a": bad, "b": bad}, "a"), ({"a": None, "b": bad}, "b")):
        with pytest.raises(FloatingPointError, match=f"gradient of '{name}' is not finite"):
            optimizer.step(grads)


def test_propagate_is_the_default() -> None:
    w = np.zeros(2)
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(np.array([np.nan, 1.0]))
    assert math.isnan(w[0])
    assert (optimizer.nonfinite, optimizer.skipped_steps) == ("propagate", 0)
    with pytest.raises(
        ValueError, match="nonfinite is 'ignore'; one of propagate, skip, raise is wanted"
    ):
        instep.SGD(w, nonfinite="ignore")


# ---- groups -----------------------------------------------------------------------------------------


def test_lr_of_all_groups() -> None:
    optimizer = instep.SGD([{"params": np.zeros(1)}, {"params": np.zeros(1), "lr": 0.5}], lr=0.25)
    with pytest.raises(ValueError, match="the groups' lr differ"):
        _ = optimizer.lr
    optimizer.lr = 2.0
    assert optimizer.lr == 2.0
    optimizer.step([np.ones(1), np.ones(1)])
    assert [p[0] for p in optimizer.params.values()] == [-2.0, -2.0]
    with pytest.raises(ValueError, match="lr is -1"):
        optimizer.lr = -1.0
    assert optimizer.lr == 2.0


def test_one_region_a_step_with_everything_on(eager_threads: None) -> None:
    if not instep.config()["openmp"]["version"]:
        pytest.skip("built without OpenMP")
    instep.set_num_threads(2)
    rng, first = start()
    optimizer = instep.Adam(first, clip_norm=1.0, nonfinite="skip", ema_decay=0.5)
    before = _core.testing.counters()["parallel_regions"]
    optimizer.step(gradients(rng))
    assert _core.testing.counters()["parallel_regions"] == before + 1
