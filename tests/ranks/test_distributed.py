"""A step that several ranks take together has the bits of one process that accumulates in their order."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import (
    CHUNK,
    DTYPES,
    LEVELS,
    MATRIX_VARIANTS,
    THREADS,
    VARIANTS,
    Variant,
    labels,
    numbers,
    rng_for,
    use_level,
)
from formulas import RULES
from hypothesis import given
from hypothesis import strategies as st
from one_process import Model, Step, Turn, check, model_of, together
from strategies import Setup, gradients, scales, setups

import instep
from instep import schedules
from instep.mpi import Distributed


@st.composite
def turns(draw: Any, setup: Setup) -> Turn:
    """What a rank brings to a step: nothing; gradients; micro-batches; micro-batches and gradients."""

    def drawn() -> Any:
        return setup.contain(draw(gradients(setup)))

    kind = draw(st.sampled_from(["nothing", "gradients", "gradients", "micro", "both"]))
    micro = [drawn() for _ in range(draw(st.integers(1, 2)))] if kind in ("micro", "both") else []
    return Turn(micro, drawn() if kind in ("gradients", "both") else None)


@given(data=st.data(), setup=setups(), size=st.integers(1, 5))
def test_any_optimizer_on_any_number_of_ranks(data: Any, setup: Setup, size: int) -> None:
    steps = [
        Step([data.draw(turns(setup)) for _ in range(size)], data.draw(scales))
        for _ in range(data.draw(st.integers(1, 3)))
    ]
    shard = data.draw(st.sampled_from([True, True, False, "auto"]))
    check(size, model_of(setup), steps, shard=shard)


SHAPES: dict[str, Any] = {"a": (CHUNK + 9,), "b": (3, 5), "c": (), "d": (0, 3), "e": (2, CHUNK)}
MATRICES: dict[str, Any] = {"a": (60, 40), "b": (7, 16), "c": (0, 4), "d": (9, 1)}


def some_gradients(shapes: Any, step: int, rank: int) -> Any:
    """Of all dtypes; some are absent."""
    rng = rng_for("gradients", step, rank)
    return {
        name: None if rng.random() < 0.2 else numbers(rng, shape, DTYPES[rng.integers(4)])
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("variant", VARIANTS + MATRIX_VARIANTS, ids=labels)
def test_every_rule_with_every_option(variant: Variant) -> None:
    """Parameters of several chunks, of one and of none, of each dtype."""
    rules_own = variant in MATRIX_VARIANTS or RULES[variant.rule.__name__].average
    shapes = MATRICES if variant in MATRIX_VARIANTS else SHAPES

    def model() -> Model:
        rng = rng_for(variant.label)
        dtypes = itertools.cycle([DTYPES[1], DTYPES[0], DTYPES[3], DTYPES[2]])
        params = {n: numbers(rng, shape, next(dtypes)) for n, shape in shapes.items()}
        extras = {} if rules_own else {"ema_decay": 0.9}
        return Model(lambda given: variant.make(given, **extras, nonfinite="skip"), params)

    steps = [
        Step([Turn((), some_gradients(shapes, k, rank)) for rank in range(3)], 0.5)
        for k in range(2)
    ]
    check(3, model, steps, shard=True)


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1])
def test_parameters_about_as_large_as_a_chunk(size: int) -> None:
    shapes = {"a": (size,), "b": (3,), "c": (size,)}

    def model() -> Model:
        params = {n: numbers(rng_for(n), shape, DTYPES[1]) for n, shape in shapes.items()}
        return Model(lambda given: instep.LAMB(given, lr=0.1, clip_norm=1.0), params)

    for ranks in (2, 3, 5):
        turns = [Turn((), some_gradients(shapes, 0, rank)) for rank in range(ranks)]
        check(ranks, model, [Step(turns)] * 2, shard=True)


def nested(draw: Any) -> Any:
    return {"deep": {"w": draw((300, 70)), "none": None}, "list": [draw(4), (draw(()), {})]}


def combined(params: Any) -> instep.Combined:
    """Rules for matrices and for the rest, schedules, averages, copies, a norm over all."""
    matrix, vector = params["deep"]["w"], params["list"]
    return instep.Combined(
        instep.Muon([matrix], lr=lambda step: 0.1 / (1 + step), ema_decay=0.5),
        instep.LAMB(vector, lr=schedules.InverseSqrtDecay(0.1, 2)),
        clip_norm=schedules.PiecewiseConstant([1.0, 3.0], [2]),
        nonfinite="skip",
    )


@pytest.mark.parametrize("shard", [True, False])
@pytest.mark.parametrize("size", [2, 3])
def test_combined_with_muon(size: int, shard: bool) -> None:
    def model() -> Model:
        rng = rng_for("combined")
        params = nested(lambda shape: numbers(rng, shape, "f4"))
        return Model(combined, params, (), lambda items: [[items[0]], [items[1], (items[2], {})]])

    def turn(step: int, rank: int) -> Turn:
        rng = rng_for(step, rank)
        matrix, row, scalar = (numbers(rng, shape, "f8") for shape in ((300, 70), 4, ()))
        if step == 2 and rank == 1:
            matrix[3, 4] = np.inf
        return Turn((), [[matrix], [None if step % 2 and rank else row, (scalar, {})]])

    steps = [Step([turn(step, rank) for rank in range(size)]) for step in range(4)]
    check(size, model, steps, shard=shard)


def test_seeds_of_a_combined_are_loaded_on_all_ranks() -> None:
    def made(*seeds: int) -> instep.Combined:
        return instep.Combined(*[instep.SGD([np.zeros(3)], seed=seed) for seed in seeds])

    state = made(11, 12).state_dict()

    def each(comm: Any) -> list[int]:
        distributed = Distributed(lambda _: made(1, 2), [], comm=comm)
        distributed.load_state_dict(state)
        return [optimizer.seed for optimizer in distributed.optimizers]

    assert together(2, each) == [[11, 12]] * 2


def adam(**more: Any) -> Callable[[], Model]:
    def model() -> Model:
        rng = rng_for("adam")
        params = nested(lambda shape: numbers(rng, shape, "f8"))
        return Model(lambda given: instep.Adam(given, lr=0.1, **more), params)

    return model


def far_out(exponent: int, step: int, rank: int) -> Turn:
    rng = rng_for("far out", step, rank)
    return Turn((), nested(lambda shape: np.ldexp(rng.standard_normal(shape), exponent)))


@pytest.mark.parametrize("exponent", [-700, -520, 505, 700])
@pytest.mark.parametrize("size", [1, 3])
def test_norms_whose_squares_overflow_or_vanish(exponent: int, size: int) -> None:
    steps = [Step([far_out(exponent, k, rank) for rank in range(size)]) for k in range(2)]
    for more in ({"clip_norm": 1.0}, {"clip_norm": 2.0**exponent}, {"nonfinite": "raise"}):
        check(size, adam(**more), steps, shard=True)


def test_a_number_that_changes_between_steps() -> None:
    def change(optimizer: Any) -> None:
        optimizer.lr = optimizer.param_groups[0]["lr"] / 2

    steps = [Step([far_out(0, k, rank) for rank in range(3)], 1.0, change) for k in range(3)]
    check(3, adam(), steps, shard=True)


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("level", LEVELS)
def test_bits_on_any_level_with_any_number_of_threads(level: str) -> None:
    use_level(level)
    steps = [Step([far_out(0, k, rank) for rank in range(2)]) for k in range(2)]
    for threads in THREADS[:3]:
        instep.set_num_threads(threads)
        check(2, adam(clip_norm=1.0), steps, shard=True)


def test_the_shared_step_was_taken() -> None:
    """Small models are stepped whole by "auto", and the states of others are shared out."""

    def each(comm: Any) -> list[tuple[int, int]]:
        found = []
        for size, shard in ((9, "auto"), (9, True), (1 << 19, "auto"), (1 << 19, False)):
            one = Distributed(instep.SGD, np.zeros(size), comm=comm, momentum=0.9, shard=shard)
            found.append(one.state["0"]["momentum_buffer"].size)
        return found

    half = 1 << 18
    assert together(2, each) == [[9, 0, half, 2 * half], [9, 9, half, 2 * half]]
