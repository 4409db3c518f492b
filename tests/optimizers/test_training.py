"""What a training loop asks for around the rule: accumulation, scaling, guards, groups, and all of it at once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from cases import BFLOAT16, CHUNK, LEVELS, THREADS, use_level
from mixed_formats import check, gradients, start
from reference import Reference, assert_same_bits

import instep
from instep import _core


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
        ValueError, match=r"step\(\) must have gradients, given or accumulated, got none"
    ):
        optimizer.step()
    optimizer.accumulate(np.ones(2))
    optimizer.discard_accumulated()
    with pytest.raises(ValueError, match="must have gradients, given or accumulated, got none"):
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


def test_sums_begin_anew_after_a_step_where_others_begin_for_the_first_time() -> None:
    """Room for their sums is made then, and all arrays are arranged anew."""
    a, b = np.zeros(3), np.zeros(1)
    optimizer = instep.SGD({"a": a, "b": b}, lr=1.0)
    optimizer.accumulate({"a": None, "b": np.ones(1)})
    optimizer.step({"a": np.ones(3), "b": np.ones(1)})
    grads = {"a": np.ones(3), "b": np.ones(1)}
    optimizer.accumulate(grads)
    assert [sums.tolist() for sums in optimizer.accumulated.values()] == [[1.0, 1.0, 1.0], [1.0]]
    optimizer.step()
    assert (a.tolist(), b.tolist()) == ([-2.0, -2.0, -2.0], [-3.0])


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
    with pytest.raises(error, match=r"grad_scale must be .*, got "):
        optimizer.step(np.ones(1), grad_scale=scale)
    assert optimizer.step_count == 0


def test_a_step_of_nothing_but_none_counts() -> None:
    w = np.ones(2)
    for params, none in ((w, None), ([w], [None]), ({"w": w}, {"w": None})):
        optimizer = instep.Adam(params, lr=lambda step: 0.1)
        optimizer.step(none)
        assert optimizer.step_count == 1
        assert set(optimizer.state_dict()["steps"].values()) == {0}
    assert w.tolist() == [1.0, 1.0]


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
                FloatingPointError,
                match=f"gradient of '{where[0]}' must be finite .*, got an infinity or NaN",
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
        with pytest.raises(
            FloatingPointError,
            match=f"gradient of '{name}' must be finite .*, got an infinity or NaN",
        ):
            optimizer.step(grads)


def test_propagate_is_the_default() -> None:
    w = np.zeros(2)
    optimizer = instep.SGD(w, lr=1.0)
    optimizer.step(np.array([np.nan, 1.0]))
    assert math.isnan(w[0])
    assert (optimizer.nonfinite, optimizer.skipped_steps) == ("propagate", 0)
    with pytest.raises(
        ValueError, match="nonfinite must be one of propagate, skip, raise, got 'ignore'"
    ):
        instep.SGD(w, nonfinite="ignore")


# ---- groups -----------------------------------------------------------------------------------------


def test_lr_of_all_groups() -> None:
    optimizer = instep.SGD([{"params": np.zeros(1)}, {"params": np.zeros(1), "lr": 0.5}], lr=0.25)
    with pytest.raises(ValueError, match=r"lr must be the same in all groups .*, got 0.25 and 0.5"):
        _ = optimizer.lr
    optimizer.lr = 2.0
    assert optimizer.lr == 2.0
    optimizer.step([np.ones(1), np.ones(1)])
    assert [p[0] for p in optimizer.params.values()] == [-2.0, -2.0]
    with pytest.raises(ValueError, match=r"lr must be .*, got -1"):
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
