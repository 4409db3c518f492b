"""A state goes from any number of ranks to any other, and to one process: the same bits."""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cases import CHUNK, FEW, MATRIX_VARIANTS, Variant, labels, numbers, rng_for
from formulas import RULES
from hypothesis import given
from hypothesis import strategies as st
from one_process import assert_alike, everything, model_of, together
from strategies import Setup, setups

import instep
from instep.mpi import Distributed, over_threads

SHAPES: dict[str, Any] = {"a": (2 * CHUNK + 9,), "b": (3, 5), "c": (), "d": (0, 3)}
MATRICES: dict[str, Any] = {"a": (60, 40), "b": (7, 16), "c": (0, 4)}
#: Ranks, how many steps they take, and whether they share the states; None: one process without ranks.
LIVES = [(3, 2, True), (2, 1, False), (None, 1, False), (5, 2, True), (1, 1, True)]

Make = Callable[[Any], Any]
Params = dict[str, Any]


def gradients(params: Params, step: int) -> list[Params]:
    """Of two batches."""
    rng = rng_for("states", step)
    return [{n: numbers(rng, np.shape(p), "f4") for n, p in params.items()} for _ in range(2)]


def one_process(make: Make, params: Params, state: Any, steps: range) -> tuple[Params, Any]:
    optimizer = make(params)
    if state is not None:
        optimizer.load_state_dict(state)
    for step in steps:
        for batch in gradients(params, step):
            optimizer.accumulate(batch)
        optimizer.step(grad_scale=0.5)
    return params, optimizer.state_dict()


def ranks(
    size: int, make: Make, params: Params, state: Any, steps: range, shard: bool
) -> tuple[Params, Any]:
    def each(comm: Any) -> tuple[Params, Any]:
        own = {name: array.copy() for name, array in params.items()}
        optimizer = Distributed(make, own, comm=comm, shard=shard)
        if state is not None:
            optimizer.load_state_dict(state if comm.rank == 0 else None)
        for step in steps:
            batches = gradients(own, step)
            mine = batches[comm.rank] if comm.rank < 2 else None
            if size == 1:
                optimizer.accumulate(batches[0])
                mine = batches[1]
            optimizer.step(mine, grad_scale=0.5)
        return own, optimizer.state_dict()

    (found, last), *others = together(size, each)
    for their_params, their_state in others:
        assert their_state is None
        assert_alike(their_params, found)
    return found, last


#: Of each rule the one with the most states.
MOST = [variant for variant in FEW if variant.label.endswith("all-terms")]


@pytest.mark.parametrize("variant", MOST + MATRIX_VARIANTS[-1:], ids=labels)
def test_one_run_over_several_numbers_of_ranks(variant: Variant) -> None:
    matrices = variant in MATRIX_VARIANTS
    dtypes = itertools.cycle(["f4", "f8"])
    rng = rng_for(variant.label)
    shapes = MATRICES if matrices else SHAPES
    params = {name: numbers(rng, shape, next(dtypes)) for name, shape in shapes.items()}
    extras: dict[str, Any] = {} if RULES[variant.rule.__name__].average else {"ema_decay": 0.9}

    def make(given: Any) -> Any:
        return variant.make(given, **extras)

    total = sum(steps for _, steps, _ in LIVES)
    wanted = one_process(make, copy.deepcopy(params), None, range(total))
    state, begin = None, 0
    for size, count, shard in LIVES:
        steps = range(begin, begin := begin + count)
        if size is None:
            params, state = one_process(make, params, state, steps)
        else:
            params, state = ranks(size, make, params, state, steps, shard)
    assert_alike([params, state], wanted)


@given(setup=setups(nonfinite="propagate"), sizes=st.tuples(*[st.integers(1, 4)] * 2))
def test_the_state_of_any_optimizer(setup: Setup, sizes: tuple[int, int]) -> None:
    """It comes back from ranks as it went there, and the copies are written, too."""
    model = model_of(setup)
    one = model()
    optimizer = one.make(one.params)
    optimizer.step(one.contain([np.ones(array.shape) for array in one.arrays]))
    state = optimizer.state_dict()

    def each(comm: Any) -> Any:
        own = model()
        for array, now in zip(own.arrays, one.arrays, strict=True):
            array[...] = now
        ours = Distributed(own.make, own.params, comm=comm, shard=True)
        with warnings.catch_warnings():  # of callables that the state can't have
            warnings.simplefilter("ignore")
            ours.load_state_dict(state if comm.rank == 0 else {"what": "others pass"})
        return ours.state_dict(), own.copies, (ours.step_count, ours.skipped_steps)

    for size in sizes:
        for rank, (found, copies, counts) in enumerate(together(size, each)):
            if rank == 0:
                assert_alike(found, state)
            assert_alike(copies, one.copies)
            assert counts == (1, 0)


def made(comm: Any, **more: Any) -> Any:
    params = {"w": np.linspace(-1, 1, 2 * CHUNK), "b": np.ones(3, np.float32)}
    return Distributed(instep.Adam, params, comm=comm, lr=0.1, ema_decay=0.5, shard=True, **more)


def test_what_was_accumulated_goes_on_with_rank_0() -> None:
    """The sums of a state in one process come before what the ranks add."""
    whole = instep.Adam({"w": np.linspace(-1, 1, 2 * CHUNK), "b": np.ones(3, np.float32)}, lr=0.1)
    grads = [{"w": np.full(2 * CHUNK, 0.1 * k), "b": np.full(3, 0.3 * k)} for k in range(1, 4)]
    whole.accumulate(grads[0])
    state = whole.state_dict()
    for each_of_them in grads[1:]:
        whole.accumulate(each_of_them)
    whole.step()

    def each(comm: Any) -> Any:
        params = {"w": np.linspace(-1, 1, 2 * CHUNK), "b": np.ones(3, np.float32)}
        optimizer = Distributed(instep.Adam, params, comm=comm, shard=True)
        optimizer.load_state_dict(state)
        optimizer.step(grads[1 + comm.rank])
        return params

    for params in together(2, each):
        assert_alike(params, whole.params)


#: What makes a good state bad, and what is said of it.
BAD: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "none": (lambda state: None, TypeError, "the state must be a dict"),
    "a number": (lambda state: 3, TypeError, "the state must be a dict"),
    "no steps": (lambda state: state.pop("steps") and state, ValueError, "steps"),
    "another rule": (lambda state: {**state, "rule": "SGD"}, ValueError, "rule"),
    "another schema": (lambda state: {**state, "schema": 99}, ValueError, "schema"),
    "another parameter": (
        lambda state: state["state"].update(x=state["state"].pop("w")) or state,
        ValueError,
        "state",
    ),
    "another shape": (
        lambda state: state["state"]["w"].update(exp_avg=np.zeros(5)) or state,
        ValueError,
        "exp_avg",
    ),
    "another dtype": (
        lambda state: state["state"]["b"].update(exp_avg=np.zeros(3)) or state,
        (ValueError, TypeError),  # type: ignore[dict-item]
        "exp_avg",
    ),
    "a list": (
        lambda state: state["averages"].update(b=[1.0, 1.0, 1.0]) or state,
        TypeError,
        "average",
    ),
    "no averages": (lambda state: {**state, "averages": {}}, ValueError, "averages"),
    "a bad number": (
        lambda state: state["param_groups"][0].update(lr=-1.0) or state,
        ValueError,
        "lr",
    ),
    "no number": (
        lambda state: state["param_groups"][0].update(lr=object()) or state,
        TypeError,
        "lr",
    ),
    "what JSON can't hold": (
        lambda state: {**state, "step_count": np.ones(2)},
        TypeError,
        "must be plain data, got an ndarray",
    ),
    "torch's": (
        lambda state: {"state": {}, "param_groups": []},
        ValueError,
        "in the form of torch.optim",
    ),
    "bad sums": (
        lambda state: state["accumulated"].update(w=np.zeros(3)) or state,
        ValueError,
        "accumulated",
    ),
    "no sums": (
        lambda state: {**state, "accumulated": 3},
        TypeError,
        "accumulated must be a dict",
    ),
    "bad counts": (
        lambda state: {**state, "step_count": -1},
        (ValueError, TypeError),
        "step_count",
    ),  # type: ignore[dict-item]
}


@pytest.mark.parametrize("how", BAD)
def test_a_bad_state_is_refused_on_all_ranks(how: str) -> None:
    spoil, error, match = BAD[how]

    def each(comm: Any) -> str:
        optimizer = made(comm)
        optimizer.step({"w": np.ones(2 * CHUNK), "b": np.ones(3)})
        state = optimizer.state_dict()
        bad = spoil(state) if comm.rank == 0 else None
        before = everything(optimizer)
        with pytest.raises(error, match=match) as caught:
            optimizer.load_state_dict(bad)
        assert_alike(everything(optimizer), before)
        optimizer.step(None)
        assert optimizer.step_count == 2
        return str(caught.value)

    first, *others = together(3, each)
    assert "\n" not in first
    for other in others:
        assert other.endswith(first), "all say the same"


def test_a_state_of_several_optimizers() -> None:
    """Neither fits the other."""

    def each(comm: Any) -> None:
        w, b = np.ones(5), np.ones(4)
        one = Distributed(instep.SGD, {"w": w}, comm=comm)
        both = Distributed(
            lambda p: instep.Combined(instep.SGD([p[0]]), instep.SGD([p[1]])), [w + 0, b], comm=comm
        )
        states = one.state_dict(), both.state_dict()
        with pytest.raises(ValueError, match="Combined"):
            one.load_state_dict(states[1])
        with pytest.raises(ValueError, match="got a state of one optimizer"):
            both.load_state_dict(states[0])
        if comm.rank == 0:
            states[1]["optimizers"][1]["state"] = {}
        with pytest.raises(ValueError, match=r"optimizers\[1\]: state must have"):
            both.load_state_dict(states[1])
        if comm.rank == 0:
            states[1]["optimizers"].pop()
        with pytest.raises(ValueError, match="must be a list of 2, got a list of 1"):
            both.load_state_dict(states[1])

    together(2, each)


def test_callables_of_other_names() -> None:
    """The warning names the line of the call."""

    def first(step: int) -> float:
        return 0.1

    def second(step: int) -> float:
        return 0.2

    state = instep.SGD({"w": np.ones(3)}, lr=first).state_dict()

    def each(comm: Any) -> float:
        optimizer = Distributed(instep.SGD, {"w": np.ones(3)}, comm=comm, lr=second)
        optimizer.load_state_dict(state)
        optimizer.step({"w": np.ones(3)})
        return float(optimizer.params["w"][0])

    with pytest.warns(UserWarning, match="was saved with the callable") as caught:
        assert together(1, each) == [0.8]
    assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.parametrize("waiting", [0, 1])
def test_sums_that_wait_are_no_state(waiting: int) -> None:
    def each(comm: Any) -> None:
        optimizer = made(comm)
        if comm.rank == waiting:
            optimizer.accumulate({"w": np.ones(2 * CHUNK), "b": None})
        with pytest.raises(ValueError, match="used all accumulated gradients") as caught:
            optimizer.state_dict()
        assert str(caught.value).startswith("state_dict" if comm.rank == waiting else "rank ")
        optimizer.discard_accumulated()
        assert (optimizer.state_dict() is None) == (comm.rank > 0)

    together(2, each)


def test_inside_averages() -> None:
    def each(comm: Any) -> None:
        optimizer = made(comm)
        state = optimizer.state_dict()
        for call in (optimizer.state_dict, lambda: optimizer.load_state_dict(state)):
            with optimizer.averaged(), pytest.raises(RuntimeError, match="averaged"):
                call()

    together(2, each)


def test_another_count_on_one_rank_is_found() -> None:
    """As after a load that some ranks didn't hear of: here one rank's plan is changed behind their back."""

    def each(comm: Any) -> None:
        optimizer = made(comm)
        optimizer.step(None)
        if comm.rank == 1:
            optimizer._plan.restore(7, 0, [(7, s, a, None, None) for s, a in parts(optimizer)])
        optimizer.step(None)

    for rank in over_threads.run(3, each):
        text = "all ranks must be at the same step, got 1 completed steps on rank 0, 7 on rank 1"
        assert text in str(rank.exception())


def test_another_count_of_one_parameter_is_found() -> None:
    """Which the step's numbers depend on."""

    def each(comm: Any) -> None:
        optimizer = made(comm)
        optimizer.step(None)
        if comm.rank == 1:
            optimizer._plan.restore(1, 0, [(5, s, a, None, None) for s, a in parts(optimizer)])
        optimizer.step({"w": np.ones(2 * CHUNK), "b": np.ones(3)})

    for rank in over_threads.run(3, each):
        assert "all ranks must compute the same scalars" in str(rank.exception())


def parts(optimizer: Any) -> list[tuple[Any, Any]]:
    plan = optimizer._plan
    return [(copy.deepcopy(plan.states[n]), plan.averages[n].copy()) for n in plan.names]
